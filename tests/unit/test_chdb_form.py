"""The form in which clickhouse-connect sends long parameters to the endpoint of chDB."""

from __future__ import annotations

from urllib3 import encode_multipart_formdata

from tallystick.plumbing.embedded.clickhouse import read_form


def test_fields_come_back_as_they_were() -> None:
    fields = {"query": "SELECT 1\nWHERE {x:String} = ''\n", "param_x": "é\\n'\t" + "x" * 9000}
    body, media_type = encode_multipart_formdata(fields)
    assert read_form(media_type, body) == fields
