"""The console command ``pyiqa-ma-agiqa``: one module for each of its commands."""
