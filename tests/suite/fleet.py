"""Runs the queries of docs/fleet.md over S3: `fleet.py PAGE ENDPOINT KEY SECRET`.

Prints a JSON object: the rows of each query, by its heading."""

import datetime
import json
import re
import sys

import duckdb
import s3fs

page, endpoint, key, secret = sys.argv[1:]
service = s3fs.S3FileSystem(
    key=key,
    secret=secret,
    endpoint_url=endpoint,
    client_kwargs={"region_name": "us-east-1"},
    config_kwargs={"s3": {"addressing_style": "path"}},
)


def plain(value):
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return str(value)


database = duckdb.connect()
database.register_filesystem(service)
answers = {}
text = open(page, encoding="utf-8").read()
for heading, section in re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", text, re.M | re.S):
    queries = re.findall(r"^```sql\n(.*?)^```$", section, re.M | re.S)
    assert len(queries) == 1, f"{heading}: {len(queries)} queries"
    cursor = database.execute(queries[0])
    names = [column[0] for column in cursor.description or []]
    answers[heading] = [dict(zip(names, row)) for row in cursor.fetchall()]
assert len(answers) == text.count("```sql\n"), "each query has a heading of its own"
print(json.dumps(answers, default=plain))
