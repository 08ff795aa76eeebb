"""One file, wherever it is read from."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from spine.sources.readers.base import Reader
from spine.sources.readers.file import FileReader

from tests.sources.readers.sftp_server import PASSWORD, USER, sftp_server
from tests.sources.readers.support import OPEN, config_of, limits, read_one, settle
from tests.sources.readers.test_s3 import KEYS, endpoint, store
from tests.support.receivers import receiver, refuse

# FINRA's own file where it is at hand.
WEEKLY = Path(__file__).parents[4] / "shared" / "data" / "finra" / "finra_otc_weekly_otc_20251215.csv"
SHA256_OF_WEEKLY = "3c9664fc922059a2ddc9dab3d300b7e646994e995333f3b6471b335648b619a7"
__all__ = ["endpoint", "store"]


def hash_of(reader: Reader) -> str:
    item, content = read_one(reader)
    assert item.name == WEEKLY.name
    assert item.validators.size == len(content)
    return hashlib.sha256(content).hexdigest()


def test_a_weekly_file_of_finra_is_the_same_as_file_http_s3_and_sftp(endpoint: str, store: Any, tmp_path: Path) -> None:
    if not WEEKLY.is_file():
        pytest.skip(f"FINRA's files are not at {WEEKLY.parent}")
    content = WEEKLY.read_bytes()
    (tmp_path / WEEKLY.name).write_bytes(content)
    settle(tmp_path / WEEKLY.name)
    store.put_object(Bucket="desk", Key=f"finra/{WEEKLY.name}", Body=content)
    s3 = config_of("s3", bucket="desk", key="finra/*", endpoint_url=endpoint, **dict.fromkeys(KEYS, "env:X"))
    hashes = [
        hash_of(FileReader(WEEKLY.name, [tmp_path], limits())),
        hash_of(s3.open_reader(KEYS, OPEN, limits())),
    ]
    with receiver() as site:
        site.always = refuse(200, content)
        url = f"http://127.0.0.1:{site.port}/{WEEKLY.name}"
        hashes.append(hash_of(config_of("http", url=url).open_reader({}, OPEN, limits())))
    with sftp_server(tmp_path) as server:
        login = {"username": USER, "password_ref": "env:PW", "host_key": server.public_key}
        sftp = config_of("sftp", host="127.0.0.1", port=server.port, path=f"/{WEEKLY.name}", **login)
        hashes.append(hash_of(sftp.open_reader({"password_ref": PASSWORD}, OPEN, limits())))
    assert hashes == [SHA256_OF_WEEKLY] * 4
