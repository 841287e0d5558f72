"""Online feature values: materialised from sources, read by key.

`serving.OnlineFeatures` and `materialization.materialize` are not handed on here: they load Arrow
and DuckDB, which the gateways that serve devices do without.
"""

from feature_catalog.online.errors import TooManyKeys
from feature_catalog.online.online_view import JoinKey, OnlineView
from feature_catalog.online.store import MAX_KEYS, OnlineStore
from feature_catalog.online.view_rows import ValueStatus, ViewRows

__all__ = [
    "MAX_KEYS",
    "JoinKey",
    "OnlineStore",
    "OnlineView",
    "TooManyKeys",
    "ValueStatus",
    "ViewRows",
]
