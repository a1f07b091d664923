"""What selectors share: the best of many scores, quotas of sources, and turns."""

from typing import TYPE_CHECKING

from selectmoe_core.lazy import lazy_names

if TYPE_CHECKING:
    from selectmoe_core.selecting.config import NumberConfig, Per, Quota, QuotaConfig, Share
    from selectmoe_core.selecting.dividing import Chosen, choose_divided
    from selectmoe_core.selecting.quotas import Allotment, Bounds, allot, allotted
    from selectmoe_core.selecting.ranking import best_first, share_of, top_of_groups

__getattr__ = lazy_names(
    __name__,
    {
        "selectmoe_core.selecting.config": "NumberConfig Per Quota QuotaConfig Share",
        "selectmoe_core.selecting.dividing": "Chosen choose_divided",
        "selectmoe_core.selecting.quotas": "Allotment Bounds allot allotted",
        "selectmoe_core.selecting.ranking": "best_first share_of top_of_groups",
    },
)

__all__ = [
    "Allotment",
    "Bounds",
    "Chosen",
    "NumberConfig",
    "Per",
    "Quota",
    "QuotaConfig",
    "Share",
    "allot",
    "allotted",
    "best_first",
    "choose_divided",
    "share_of",
    "top_of_groups",
]
