"The main job asks no network for anything, even where nothing forbids it."
import json

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
