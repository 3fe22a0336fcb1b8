"The main job asks no network for anything, even where nothing forbids it."
import json
import os
import subprocess
import sys

import pytest

def test_no_attempt_at_a_network(tiny):
    "prepare, train, export, evaluate and predict neither resolve a name nor connect"
    assert tiny.attempts==[]

def test_whole_job_gives_what_it_promises(tiny):
    "The same run wrote a report and a prediction"
    m = json.loads((tiny.report/'metrics.json').read_text())
    assert m['n']>=200 and {'majority', 'linear'}<=m['baselines'].keys()
    assert all(m[k]['low']<=m[k]['value']<=m[k]['high'] for k in ('accuracy', 'macro_f1'))
    p = json.loads(tiny.printed[-1])
    assert p['label'] in ('negative', 'positive') and abs(sum(p['probabilities'].values())-1)<1e-6

LOOK = '''
import os, sys
class Look:
    def find_spec(self, name, *args):
        if name=='onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))
sys.meta_path.insert(0, Look())
import sentiment_nb.{}
'''

@pytest.mark.parametrize('name', ['inference', 'api', 'cli'])
def test_onnxruntime_is_told_to_report_nothing(name):
    "Before it is loaded: its official builds send telemetry unless this variable stands, through sockets that Python does not see"
    env = {k: v for k,v in os.environ.items() if k!='ORT_DISABLE_TELEMETRY'}
    command = [sys.executable, '-c', LOOK.format(name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout=='1\n'
