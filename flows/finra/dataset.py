"""Names of the ``finra.otc_transparency`` data set: its tiers, partitions and captures."""

import hashlib
import json
from datetime import date
from typing import Literal

DATASET = "finra.otc_transparency"
SCHEMA_VERSION = 1
"""Part of every capture id. Increase it when the same file would give different tables."""

Tier = Literal["OTC", "T1", "T2"]

TIER_SPELLINGS: dict[Tier, tuple[str, ...]] = {
    "OTC": ("OTC",),
    "T1": ("T1", "NMS TIER 1"),
    "T2": ("T2", "NMS TIER 2"),
}
"""How ``tierDescription`` spells each tier, in upper case with single spaces."""


def partition(tier: Tier, week_ending: date) -> str:
    """The directory of one tier and week in the warehouse, in the format of hive partitions."""
    return f"{DATASET}/tier={tier}/week_ending={week_ending.isoformat()}"


def capture_id(tier: Tier, week_ending: date, file_sha256: str) -> str:
    """The id of the content: the same for the same file, tier, week and schema, different if any of them changes."""
    content = json.dumps([DATASET, SCHEMA_VERSION, tier, week_ending.isoformat(), file_sha256])
    return f"{tier.lower()}-{week_ending.isoformat()}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
