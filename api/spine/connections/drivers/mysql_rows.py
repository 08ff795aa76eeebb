"""The rows of a prepared statement of MySQL and MariaDB, in the binary protocol.

The text protocol, the only one that PyMySQL has, rounds a FLOAT to six digits. The connection, its packets and the
descriptions of columns are PyMySQL's.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pymysql import connections
from pymysql.constants import COMMAND, FIELD_TYPE, FLAG

from spine.connections.drivers.base import Column, not_representable

# The collation of bytes.
_BINARY = 63
# The most digits of a decimal that all readers of Arrow and Parquet have.
_MOST_DIGITS = 38
_TYPES: dict[int, pa.DataType] = {
    FIELD_TYPE.TINY: pa.int16(),
    FIELD_TYPE.SHORT: pa.int32(),
    FIELD_TYPE.INT24: pa.int32(),
    FIELD_TYPE.LONG: pa.int64(),
    FIELD_TYPE.LONGLONG: pa.int64(),
    FIELD_TYPE.YEAR: pa.int16(),
    FIELD_TYPE.FLOAT: pa.float32(),
    FIELD_TYPE.DOUBLE: pa.float64(),
    FIELD_TYPE.DATE: pa.date32(),
    FIELD_TYPE.NEWDATE: pa.date32(),
    FIELD_TYPE.DATETIME: pa.timestamp("us"),
    FIELD_TYPE.TIMESTAMP: pa.timestamp("us"),
    FIELD_TYPE.TIME: pa.duration("us"),
    FIELD_TYPE.BIT: pa.binary(),
    FIELD_TYPE.GEOMETRY: pa.binary(),
}
_BYTES_OR_TEXT = {
    *(FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB, FIELD_TYPE.BLOB),
    *(FIELD_TYPE.STRING, FIELD_TYPE.VAR_STRING, FIELD_TYPE.VARCHAR),
}
# The formats of numbers, signed; those of unsigned ones are the same in upper case.
_NUMBERS = {
    FIELD_TYPE.TINY: "b",
    FIELD_TYPE.SHORT: "h",
    FIELD_TYPE.YEAR: "h",
    FIELD_TYPE.INT24: "i",
    FIELD_TYPE.LONG: "i",
    FIELD_TYPE.LONGLONG: "q",
    FIELD_TYPE.FLOAT: "f",
    FIELD_TYPE.DOUBLE: "d",
}
_DATES = {FIELD_TYPE.DATE, FIELD_TYPE.NEWDATE, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP}
# After the byte that is 0 for a row, two bits of the bitmap of nulls are not of a column.
_BITS_BEFORE = 2
# Reads a value from a packet of PyMySQL, which has no types.
_Read = Callable[[Any], Any]
_Description: Any = connections.FieldDescriptorPacket  # type: ignore[attr-defined]


class BinaryRows:
    """The rows of one query, which the server keeps until they are fetched."""

    def __init__(self, connection: Any, query: str) -> None:
        self._connection = connection
        connection._execute_command(COMMAND.COM_STMT_PREPARE, query)
        prepared = connection._read_packet()
        _, statement, columns, parameters = struct.unpack("<BIHH", prepared.read(9))
        for count in (parameters, columns):
            self._read_descriptions(count)
        # No cursor of the server, and executed once.
        connection._execute_command(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", statement, 0, 1))
        first = connection._read_packet()
        fields = self._read_descriptions(0 if first.is_ok_packet() else first.read_length_encoded_integer())
        self.columns: Sequence[Column] = [_column(field) for field in fields]
        self._readers = [_reader(field, column) for field, column in zip(fields, self.columns, strict=True)]
        self._done = not fields

    def fetch(self, count: int) -> Sequence[Sequence[Any]]:
        """The next rows. Raises `FetchFailure` for a date that does not exist."""
        rows: list[Sequence[Any]] = []
        while len(rows) < count and not self._done:
            packet = self._connection._read_packet()
            if packet.is_eof_packet():
                self._done = True
            else:
                rows.append(self._row(packet))
        return rows

    def _row(self, packet: Any) -> Sequence[Any]:
        packet.advance(1)
        nulls = int.from_bytes(packet.read((len(self._readers) + _BITS_BEFORE + 7) // 8), "little") >> _BITS_BEFORE
        return [None if nulls >> at & 1 else read(packet) for at, read in enumerate(self._readers)]

    def _read_descriptions(self, count: int) -> list[Any]:
        fields = [self._connection._read_packet(_Description) for _ in range(count)]
        if fields:
            # The packet that ends them.
            self._connection._read_packet()
        return fields


def _column(field: Any) -> Column:
    if field.type_code == FIELD_TYPE.LONGLONG and field.flags & FLAG.UNSIGNED:
        return Column(field.name, pa.uint64())
    if field.type_code == FIELD_TYPE.NEWDECIMAL:
        # The length includes the sign and the decimal point.
        digits = field.length - (1 if field.scale else 0) - (0 if field.flags & FLAG.UNSIGNED else 1)
        fits = 0 < digits <= _MOST_DIGITS
        return Column(field.name, pa.decimal128(digits, field.scale) if fits else pa.string())
    if field.type_code in _BYTES_OR_TEXT and field.charsetnr == _BINARY:
        return Column(field.name, pa.binary())
    return Column(field.name, _TYPES.get(field.type_code, pa.string()))


def _reader(field: Any, column: Column) -> _Read:
    if (form := _NUMBERS.get(field.type_code)) is not None:
        is_unsigned = field.flags & FLAG.UNSIGNED and form not in "fd"
        number = struct.Struct("<" + (form.upper() if is_unsigned else form))
        return lambda packet: number.unpack(packet.read(number.size))[0]
    if field.type_code in _DATES:
        return lambda packet: _date(packet, column)
    if field.type_code == FIELD_TYPE.TIME:
        return _time
    if field.type_code == FIELD_TYPE.NEWDECIMAL:
        return lambda packet: Decimal(_bytes(packet).decode("ascii"))
    if column.type is not None and pa.types.is_binary(column.type):
        return _bytes
    return lambda packet: _bytes(packet).decode()


def _bytes(packet: Any) -> bytes:
    length = packet.read_length_encoded_integer()
    return bytes(packet.read(length)) if length else b""


def _date(packet: Any, column: Column) -> date | datetime:
    # Parts at the end that are zero are left out.
    length = packet.read_uint8()
    year, month, day, hour, minute, second, micros = struct.unpack("<HBBBBBI", packet.read(length).ljust(11, b"\0"))
    try:
        moment = datetime(year, month, day, hour, minute, second, micros)
    except ValueError:
        shown = f"{year:04}-{month:02}-{day:02}"
        if column.type != pa.date32():
            shown += f" {hour:02}:{minute:02}:{second:02}"
        raise not_representable(column, shown) from None
    return moment.date() if column.type == pa.date32() else moment


def _time(packet: Any) -> timedelta:
    length = packet.read_uint8()
    is_negative, days, hours, minutes, seconds, micros = struct.unpack("<BIBBBI", packet.read(length).ljust(12, b"\0"))
    span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=micros)
    return -span if is_negative else span
