"""What a model costs on a device: one protocol of measuring, many kinds of device (FLINT)."""
