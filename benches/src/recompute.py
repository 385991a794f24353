"""One query in DuckDB, from nothing. Reads a request from standard input and
prints an answer, both JSON."""

import json
import resource
import sys
import time

import duckdb

request = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute(f"SET threads = {int(request['threads'])}")
connection.execute("SET enable_progress_bar = false")
connection.execute(request["setup"])

# Every column is computed and none is kept, as with a sink that discards.
discarding = f"SELECT count(*), bit_xor(hash(*COLUMNS(*))) FROM (\n{request['query']}\n)"
seconds = []
for _ in range(request["runs"]):
    started = time.perf_counter()
    rows = connection.execute(discarding).fetchone()[0]
    seconds.append(time.perf_counter() - started)

usage = resource.getrusage(resource.RUSAGE_SELF)
answer = {
    "version": duckdb.__version__,
    "seconds": sorted(seconds)[len(seconds) // 2],
    "rows": rows,
    "peak_mib": usage.ru_maxrss / 1024,
    "cpu_seconds": (usage.ru_utime + usage.ru_stime) / len(seconds),
    "check": None,
}
if request["check"]:
    connection.execute(f"CREATE TEMP TABLE answer AS\n{request['query']}")
    cursor = connection.execute(request["check"])
    names = [column[0] for column in cursor.description]
    answer["check"] = dict(zip(names, cursor.fetchone()))
print(json.dumps(answer, default=float))
