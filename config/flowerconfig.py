"""Flower's configuration: `python -m workers flower --conf=config/flowerconfig.py`; docs/guides/flower.md."""

from celery import current_app
from tornado.options import options

from config import flowerbroker, flowerguard
from config.flower import format_task, load
from config.settings import settings

__all__ = ["format_task"]  # Flower formats each task with it

# The command line takes precedence over the settings.
_configured = load(**({"address": options.address} if getattr(options, "address", None) else {}))

# Flower must not restore unacknowledged messages: it may have no permission for these keys.
current_app.conf.broker_transport_options |= {"ack_emulation": False}

address = _configured.address
port = _configured.port
basic_auth = _configured.logins()
url_prefix = _configured.url_prefix.strip("/")
read_only = _configured.read_only

flowerbroker.require_usable_store()
flowerbroker.install()
flowerguard.install(_configured.accepted_hosts(), _configured.page_url)

persistent = True
_history = _configured.history_file(settings().prefix)
_history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
db = str(_history)
state_save_interval = _configured.state_save_interval
max_tasks = _configured.max_tasks
# Worker names contain the process id: each restart leaves an offline name.
purge_offline_workers = 3600

tasks_columns = "name,args,state,retries,received,runtime,worker,uuid"
