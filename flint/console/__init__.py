"""``flint console``: the catalog in a browser, to look at and not to touch."""
