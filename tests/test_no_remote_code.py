"No code that comes with a model is ever run: every load by transformers forbids it."
import ast
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
modules = sorted((root/'sentiment_nb').glob('[a-z]*.py'))

def loads_a_model(call):
    "Whether a call is `Auto….from_pretrained(…)` or transformers' `pipeline(…)`, under whatever module name"
    parts = ast.unparse(call.func).split('.')
    if parts[-1]=='from_pretrained': return len(parts)>1 and parts[-2].startswith('Auto')
    return parts[-1]=='pipeline'

def forbids_code(call):
    values = [k.value for k in call.keywords if k.arg=='trust_remote_code']
    return any(isinstance(v, ast.Constant) and v.value is False for v in values)

def unguarded(source):
    "Lines of calls that would let transformers ask for, or run, code of a model"
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    return [c.lineno for c in calls if loads_a_model(c) and not forbids_code(c)]

@pytest.mark.parametrize('source, lines', [
    ('AutoModel.from_pretrained(f)', [1]),
    ('x = 1\ntransformers.AutoTokenizer.from_pretrained(f, trust_remote_code=ask)', [2]),
    ('AutoConfig.from_pretrained(f, trust_remote_code=True)', [1]),
    ('transformers.pipeline("text-classification", f)', [1]),
    ('pipeline("text-classification", f, trust_remote_code=False)', []),
    ('AutoModel.from_pretrained(f, trust_remote_code=False)', []),
    ('Predictor.from_pretrained(f); make_pipeline(a, b)', []),
])
def test_the_measure_itself(source, lines): assert unguarded(source)==lines

@pytest.mark.parametrize('path', modules, ids=lambda p: p.stem)
def test_every_load_forbids_code(path): assert unguarded(path.read_text(encoding='utf-8'))==[]
