"""The DAQ's settings: lenient about characters, strict about structure, silent about secrets."""

from __future__ import annotations

import json
import math

import pytest

from cygnoreco.errors import DataError
from cygnoreco.io.odb import REDACTED, dump_odb, lookup, parse_odb, redact

JSON_DUMP = b"""{
  "Runinfo" : {
    "Run number/key" : { "type" : 7, "access_mode" : 7 },
    "Run number" : 5001,
    "Start time binary/key" : { "type" : 6 },
    "Start time binary" : "0x6553f100"
  },
  "Configurations" : {
    "Exposure/key" : { "type" : 10 },
    "Exposure" : 3.0000000000000000e-01,
    "Gain/key" : { "type" : 9, "num_values" : 3 },
    "Gain" : [ 1.5e+00, "NaN", "-Infinity" ],
    "Count/key" : { "type" : 9 },
    "Count" : 2,
    "FreeRunning/key" : { "type" : 8 },
    "FreeRunning" : false,
    "Name/key" : { "type" : 12, "item_size" : 32 },
    "Name" : "0x10"
  }
}"""

XML_DUMP = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!-- created by MXML -->
<odb root="/" filename="run00001.xml" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <dir name="Runinfo">
    <key name="Run number" type="INT">77</key>
    <key name="Mask" type="DWORD">0x10</key>
    <key name="Broken" type="INT">many</key>
  </dir>
  <dir name="Configurations">
    <key name="Exposure" type="DOUBLE">0.3</key>
    <key name="FreeRunning" type="BOOL">y</key>
    <key name="Comment" type="STRING" size="32">tem\x01p &lt; 20 \xb0C</key>
    <key name="Empty" type="STRING" size="32"></key>
    <keyarray name="Offset" type="FLOAT" num_values="2">
      <value index="0">-0.3</value>
      <value index="1">0.25</value>
    </keyarray>
  </dir>
</odb>
\0"""


def test_json_values_have_the_types_of_their_siblings() -> None:
    odb = parse_odb(JSON_DUMP)
    assert odb["Runinfo"] == {"Run number": 5001, "Start time binary": 0x6553F100}
    configurations = odb["Configurations"]
    assert configurations["Exposure"] == 0.3
    assert configurations["Gain"][0] == 1.5
    assert math.isnan(configurations["Gain"][1])
    assert configurations["Gain"][2] == -math.inf
    assert type(configurations["Count"]) is float
    assert configurations["FreeRunning"] is False
    assert configurations["Name"] == "0x10"  # a string that looks like a number


def test_xml_values_have_their_types() -> None:
    odb = parse_odb(XML_DUMP)
    assert odb == {
        "Runinfo": {"Run number": 77, "Mask": 16, "Broken": "many"},
        "Configurations": {
            "Exposure": 0.3,
            "FreeRunning": True,
            "Comment": "temp < 20 °C",
            "Empty": "",
            "Offset": [-0.3, 0.25],
        },
    }


def test_characters_are_read_leniently() -> None:
    dump = '{"Unit": "µm'.encode() + b' \xb0C \x07\n", "Next": 1}\0'
    assert parse_odb(memoryview(dump)) == {"Unit": "µm °C \x07\n", "Next": 1}
    assert parse_odb(b"") == parse_odb(b"\0") == {}


@pytest.mark.parametrize(
    ("dump", "message"),
    [
        (JSON_DUMP[:200], "not valid JSON"),
        (b"[1, 2]", "not a JSON object"),
        (XML_DUMP[:300], "not valid XML"),
        (b'<!DOCTYPE odb [<!ENTITY a "aaaa">]><odb><key name="x" type="STRING">&a;</key></odb>', "entities"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_broken_structure_is_an_error(dump: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_odb(dump)


def test_what_is_dumped_is_read_back() -> None:
    settings = {
        "Runinfo": {"Run number": 5001, "Big": 2**40},
        "Configurations": {
            "Exposure": 0.3,
            "FreeRunning": True,
            "Names": ["a", "é"],
            "Values": [1.5, -2.0, math.inf, -math.inf],
            "Mixed": [1, 2.5],
            "Nothing": [],
            "Deep": {"er": {"key": "value"}},
        },
    }
    dump = dump_odb(settings)
    assert parse_odb(dump) == settings
    assert json.loads(dump)["Runinfo"]["Run number/key"] == {"type": 7}
    assert math.isnan(parse_odb(dump_odb({"x": math.nan}))["x"])
    with pytest.raises(TypeError, match="an ODB value is"):
        dump_odb({"x": object()})


def test_a_path_leads_to_its_value() -> None:
    odb = parse_odb(JSON_DUMP)
    assert lookup(odb, "/Runinfo/Run number") == 5001
    assert lookup(odb, "/Runinfo") == odb["Runinfo"]
    assert lookup(odb, "/Runinfo/Run number/x") is None
    assert lookup(odb, "/Nowhere", "default") == "default"


def test_secrets_are_blotted_out_wherever_they_are() -> None:
    odb = {
        "Experiment": {"Security": {"Password": "p1", "Enable": True, "Web Passwords": {"anna": "p2", "n": 42}}},
        "Cloud": {"S3 Secret Key": "p3", "access_key_id": "p4", "API token": ["p5", "p6"], "Region": "eu"},
        "Log": {"DSN": "mysql://writer:p7@host/db", "ODBC": "Server=x;PWD=p8;Port=1", "Empty password": ""},
        "Script": "mysql -u writer -pp9 daq",
        "Nested": [{"passwd": "p10"}, "token: p11"],
    }
    text = json.dumps(redact(odb))
    assert not any(f"p{number}" in text for number in range(1, 12))
    clean = redact(odb)
    assert clean["Cloud"]["Region"] == "eu"
    assert clean["Experiment"]["Security"]["Enable"] is True
    assert clean["Experiment"]["Security"]["Web Passwords"] == {"anna": REDACTED, "n": REDACTED}
    assert clean["Log"]["DSN"] == f"mysql://writer:{REDACTED}@host/db"
    assert clean["Log"]["Empty password"] == ""
    assert odb["Experiment"]["Security"]["Password"] == "p1"  # a copy


def test_what_is_no_secret_stays() -> None:
    odb = {"Runinfo": {"Run number": 1}, "Keyboard": "de", "Monkey": [1.5], "URL": "http://host:8081/path@x"}
    assert redact(odb) == odb
