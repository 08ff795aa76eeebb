"""Weekly files of the layout and size of FINRA's: two of our own making, and FINRA's own two where they are at hand."""

import csv
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from tests.support.processes import PROJECT

FINRA_FILES = PROJECT.parent / "shared" / "data" / "finra"
HEADER = (
    *("tierDescription", "issueSymbolIdentifier", "issueName", "marketParticipantName"),
    *("MPID", "totalWeeklyShareQuantity", "totalWeeklyTradeCount", "lastUpdateDate"),
)
# Nine venues, most of which trade few symbols.
VENUES = {
    "ALTA": ("ALTA ALPINE TRADING ATS", 4),
    "BRDG": ("BRDG BRIDGE STREET SECURITIES, LLC", 2),
    "CNTR": ("CNTR COUNTER LINK ECN ATS", 1700),
    "DRPE": ("DRPE DROP PRIVATE EXCHANGE CORPORATION", 400),
    "EAST": ("EAST EASTERN OTC", 870),
    "FLTN": ("FLTN FULTON SECONDARY", 1),
    "GATE": ("GATE GATEWAY LINK NQB IDQS", 2300),
    "HRBR": ("HRBR HARBOR MARKETS ATS", 6),
    "INLT": ("INLT INLET ADVISORS, INC.", 1),
}
WORDS = ("Asia", "Broadband", "Technologies", "Holdings", "Unsponsored ADR", "(Cayman Islands)", "Mining", "Bancorp")


@dataclass(frozen=True)
class Figures:
    """What is counted in a whole file."""

    rows: int
    symbols: int
    venues: int
    shares: int
    trades: int
    last_update: str


@dataclass(frozen=True)
class WeeklyFile:
    """A file, and where FINRA has made it, what it is known to hold."""

    week: str
    known: Figures | None = None
    known_sha256: str | None = None

    @property
    def name(self) -> str:
        """The name of the file, after FINRA's pattern."""
        maker = "finra" if self.known else "made"
        return f"{maker}_otc_weekly_otc_{self.week.replace('-', '')}.csv"

    @property
    def path(self) -> Path:
        """Where FINRA's own is."""
        return FINRA_FILES / self.name

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self.path.read_bytes() if self.known else "".join(_lines(self.week)).encode()

    @property
    def sha256(self) -> str:
        """The hash of the file, known in advance for FINRA's."""
        return self.known_sha256 or hashlib.sha256(self.content).hexdigest()

    @cached_property
    def figures(self) -> Figures:
        """Its figures, known in advance for FINRA's, and for ours counted by other means than the flow's."""
        return self.known or _count(self.content.decode())

    def write(self, folder: Path) -> Path:
        """Put the file into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.name).write_bytes(self.content)
        return folder / self.name


def _count(text: str) -> Figures:
    rows = list(csv.DictReader(text.splitlines(), delimiter="|", quoting=csv.QUOTE_NONE))
    return Figures(
        rows=len(rows),
        symbols=len({row["issueSymbolIdentifier"] for row in rows}),
        venues=len({row["MPID"] for row in rows}),
        shares=int(sum(Decimal(row["totalWeeklyShareQuantity"]) for row in rows)),
        trades=int(sum(Decimal(row["totalWeeklyTradeCount"]) for row in rows)),
        last_update=max(row["lastUpdateDate"] for row in rows),
    )


def _lines(week: str) -> Iterator[str]:
    """A file that is the same each time it is made for a week."""
    chance = random.Random(week)
    symbols = sorted(
        {"".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=chance.choice((4, 5)))) for _ in range(3100)}
    )
    names = {symbol: " ".join(chance.sample(WORDS, chance.choice((3, 4, 5)))) + " Common Stock" for symbol in symbols}
    traded = {(symbol, mpid) for mpid, (_, count) in VENUES.items() for symbol in chance.sample(symbols, count)}
    # Every symbol is traded somewhere.
    traded |= {(symbol, "GATE") for symbol in symbols if not any((symbol, mpid) in traded for mpid in VENUES)}
    yield "|".join(HEADER) + "\n"
    for symbol, mpid in sorted(traded):
        shares, trades = int(chance.lognormvariate(8.3, 3.4)) + 1, int(chance.lognormvariate(2.5, 1.6)) + 1
        yield f"OTC|{symbol}|{names[symbol]}|{VENUES[mpid][0]}|{mpid}|{shares}|{trades}|{week}\n"


MADE = (WeeklyFile("2026-02-02"), WeeklyFile("2026-02-09"))
FINRAS_OWN = (
    WeeklyFile(
        "2025-12-15",
        Figures(5_328, 3_111, 9, 1_335_995_901, 472_776, "2025-12-15"),
        "3c9664fc922059a2ddc9dab3d300b7e646994e995333f3b6471b335648b619a7",
    ),
    WeeklyFile(
        "2025-12-22",
        Figures(5_192, 2_985, 9, 943_802_893, 497_191, "2025-12-22"),
        "9dad14818671e214ee3c5f3dda80fd21306033cdfbbd7ac07c4c2436848be895",
    ),
)
# Pairs of weeks of one maker.
PAIRS = [MADE, *([FINRAS_OWN] if FINRA_FILES.is_dir() else [])]
WEEKLY_FILES = [file for pair in PAIRS for file in pair]
