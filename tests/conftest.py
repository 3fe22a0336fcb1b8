"What every test may rely on, however pytest is started."
import os
from pathlib import Path

root = Path(__file__).resolve().parents[1]
os.environ.setdefault('SENTIMENT_NB_CACHE', str(root/'.cache'))
os.environ.setdefault('HF_HUB_OFFLINE', '1')

def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes minutes or wants the large data sets; run by `make test-all`')
