"""Flower's configuration: `celery -A workers.app flower --conf=config/flowerconfig.py`.

FLOWER_BASIC_AUTH (user:password, several separated by commas) sets a login.
"""

import os

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
basic_auth = os.environ.get("FLOWER_BASIC_AUTH", "").split(",") if os.environ.get("FLOWER_BASIC_AUTH") else []

#: Flower shows; what is done to jobs is done with `voicequeue`.
read_only = True
#: By itself it keeps 100,000 tasks in memory; history lives in the job records.
max_tasks = 20_000
tasks_columns = "name,uuid,state,args,received,runtime,worker,retries"
