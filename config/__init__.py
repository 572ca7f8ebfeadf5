"""Every knob: the settings, Celery's and Flower's configuration. Only `workers` reads them."""
