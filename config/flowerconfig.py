"""Flower's configuration: `celery -A workers.app flower --conf=config/flowerconfig.py`; docs/flower.md."""

from celery import current_app
from tornado.options import options

from config import flowerguard
from config.flower import format_task, load
from config.settings import settings

__all__ = ["format_task"]  # by which Flower shows each task

# What the command line says goes before all that stands here.
_chosen = load(**({"address": options.address} if getattr(options, "address", None) else {}))

# Messages that a worker does not acknowledge are for other workers: Flower may have no right to touch them.
current_app.conf.broker_transport_options |= {"ack_emulation": False}

address = _chosen.address
port = _chosen.port
basic_auth = _chosen.logins()
url_prefix = _chosen.url_prefix.strip("/")
read_only = _chosen.read_only

flowerguard.install(_chosen.names())

persistent = True
_history = _chosen.history(settings().prefix)
_history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
db = str(_history)
state_save_interval = _chosen.state_save_interval
max_tasks = _chosen.max_tasks
# Workers are named by their process: each one that was restarted leaves a name behind.
purge_offline_workers = 3600

tasks_columns = "name,args,state,retries,received,runtime,worker,uuid"
