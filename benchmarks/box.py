"""How large is the image, how soon does its container answer, and in how much memory?

Method: podman, which needs no daemon, builds the Dockerfile as it is, on a root of the same Debian and Python made
with debootstrap in place of the base image, which comes from a registry. Sizes are those of the layers as they are
pushed, compressed by gzip; of the base the published one is added. Each start is a new container on a read-only file
system without a network; the clock runs from `podman run` to the line in the log that says ready. Linux, as root:

    apt-get install --no-install-recommends podman runc debootstrap
    python benchmarks/box.py --model models/quickstart
"""
import argparse, json, os, re, shutil, subprocess, tempfile, time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from common import print_table, save, say, spread

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ('podman', 'runc', 'debootstrap')
BASE = 'python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b'
# Compressed, linux/amd64, of 2026-09-19:
# https://github.com/docker-library/repo-info/blob/master/repos/python/remote/3.11-slim-bookworm.md
BASE_BYTES = 47_795_628
MOST_MB = 200 # Beside the model
MOST_SECONDS = 3. # To ready
CONTEXT = ('Dockerfile', '.dockerignore', 'LICENSE', 'README.md', 'deploy', 'settings.ini', 'setup.py', 'sentiment_nb')
PREDICT = '''import json; from urllib.request import Request, urlopen
for n in (1, 20, 400):
    body = json.dumps({'text': 'good '*n}).encode()
    urlopen(Request('http://127.0.0.1:8000/predict', body, {'content-type': 'application/json'})).read()
''' # A few requests from within the container

def missing() -> list[str]: # Empty where a box can be built
    "What this machine lacks to build and run the image"
    is_root = hasattr(os, 'geteuid') and os.geteuid()==0
    return [t for t in TOOLS if not shutil.which(t)] + ([] if is_root else ['root'])

def make_context(folder, model=None):
    "A folder as the checkout is after the model was trained; None: before"
    for name in CONTEXT:
        copy = shutil.copytree if (ROOT/name).is_dir() else shutil.copy
        copy(ROOT/name, folder/name)
    if model: shutil.copytree(model, folder/'models'/Path(model).name)
    return folder

def until(true, seconds=60, why=lambda: 'waited in vain'):
    "What `true` gives as soon as it is true"
    end = time.monotonic()+seconds
    while not (value := true()):
        if time.monotonic()>end: raise RuntimeError(why())
        time.sleep(.1)
    return value

class Podman:
    "podman with a storage of its own"
    def __init__(self, home):
        self.home = Path(home)
        self.flags = ['--root', home/'storage', '--runroot', home/'run', '--cgroup-manager', 'cgroupfs',
            '--runtime', 'runc', '--log-level', 'fatal']
        # a root without all rights may not raise its limits, as podman would
        self.limits = ['--ulimit=nofile=4096:4096', '--ulimit=nproc=4096:4096']

    def ask(self, *args, **kw):
        "A finished process, with what it printed"
        command = ['podman', *map(str, [*self.flags, *args])]
        return subprocess.run(command, capture_output=True, text=True, timeout=1800, **kw)

    def __call__(self, *args, **kw):
        "Output of a command that must succeed"
        done = self.ask(*args, **kw)
        if done.returncode:
            output = (done.stdout + done.stderr)[-3000:]
            raise RuntimeError(f'podman {args[0]} ended with {done.returncode}:\n{output}')
        return done.stdout.strip()

    def make_base(self):
        """An image `localhost/base` of Debian with Python, laid out like the base image

        pip's settings and certificates are this machine's.
        """
        root = self.home/'base'
        packages = '--include=python3,python3-venv,python3-pip,ca-certificates'
        command = ['debootstrap', '--variant=minbase', packages, 'bookworm', root]
        subprocess.run(command, check=True, capture_output=True, timeout=1200)
        (root/'usr/local/bin/python').symlink_to('/usr/bin/python3')
        for p in map(Path, ('/etc/pip.conf', '/etc/ssl/certs/ca-certificates.crt')):
            if p.exists(): shutil.copy(p, root/p.relative_to('/'))
        with subprocess.Popen(['tar', '-C', root, '-c', '.'], stdout=subprocess.PIPE) as tar:
            self('import', '--quiet', '-', 'localhost/base', stdin=tar.stdout)
        shutil.rmtree(root)

    def build(self, context, target='api', **args):
        "Build `localhost/TARGET`; the finished process"
        build_args = [f'--build-arg={k}={v}' for k,v in {'BASE': 'localhost/base', **args}.items()]
        return self.ask('build', '--isolation', 'chroot', '--network', 'host', '--format', 'docker',
            '--target', target, *build_args, '--tag', f'localhost/{target}', context)

    @contextmanager
    def running(self, image, *options, network='none', command=()):
        "Name of a container on a read-only file system, without rights and, unless it shares another's, network"
        name = f'box{time.monotonic_ns()}'
        self('run', '--detach', '--name', name, '--read-only', '--read-only-tmpfs=false', '--network', network,
            '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', *self.limits, *options, image, *command)
        try: yield name
        finally: self.ask('rm', '--force', '--time', '0', name)

    def logs(self, name):
        "All that a container has said"
        done = self.ask('logs', name)
        return done.stdout + done.stderr

    def wait(self, name, sign, seconds=60):
        "The first line of the log that holds `sign`"
        def find_line(): return next((line for line in self.logs(name).splitlines() if sign in line), None)
        return until(find_line, seconds, lambda: f'{sign!r} is not in the log:\n{self.logs(name)}')

    def layers(self, image):
        "What made each layer, and its compressed bytes"
        with tempfile.TemporaryDirectory(dir=self.home) as d:
            self('push', '--compress', image, f'dir:{d}')
            manifest = json.loads((Path(d)/'manifest.json').read_text())
            digest = manifest['config']['digest'].split(':')[1]
            history = json.loads((Path(d)/digest).read_text())['history']
        commands = [h['created_by'] for h in history if not h.get('empty_layer')]
        sizes = [layer['size'] for layer in manifest['layers']]
        return list(zip(commands, sizes, strict=True))

    def __enter__(self):
        self.make_base()
        return self

    def __exit__(self, *_):
        self.ask('system', 'reset', '--force')

def start(podman):
    "Seconds from `podman run` to ready, and resident megabytes at most after a few requests"
    before = time.time()
    with podman.running('localhost/api') as name:
        line = json.loads(podman.wait(name, '"ready"'))
        ready = datetime.strptime(line['time'], '%Y-%m-%d %H:%M:%S,%f').replace(tzinfo=timezone.utc).timestamp()
        podman('exec', name, 'python', '-c', PREDICT)
        pid = podman('inspect', '--format', '{{.State.Pid}}', name)
        status = Path(f'/proc/{pid}/status').read_text()
    kilobytes = int(re.search(r'VmHWM:\s+(\d+)', status)[1])
    return ready-before, kilobytes*1024/1e6

def layer_megabytes(layers, path): return sum(n for command,n in layers if f' in {path}' in command)/1e6

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default=str(ROOT/'models/quickstart'), help='a model folder with ONNX files')
    p.add_argument('--repeat', type=int, default=5)
    args = p.parse_args()
    if missing(): raise SystemExit(f"needs {', '.join(missing())}: see the top of this script")
    if f'ARG BASE={BASE}\n' not in (ROOT/'Dockerfile').read_text():
        raise SystemExit(f'the Dockerfile has another base than {BASE}: BASE_BYTES is not its size')
    with tempfile.TemporaryDirectory(prefix='box-') as home, Podman(Path(home)) as podman:
        context = Path(home)/'context'
        context.mkdir()
        make_context(context, args.model)
        before = time.perf_counter()
        done = podman.build(context, MODEL=f'models/{Path(args.model).name}')
        seconds = time.perf_counter()-before
        if done.returncode: raise SystemExit(done.stdout + done.stderr)
        layers = podman.layers('localhost/api')
        sizes = {'base image, as published': BASE_BYTES/1e6,
            'Python packages': layer_megabytes(layers, '/opt/venv'),
            'model': layer_megabytes(layers, '/model')}
        starts = [start(podman) for _ in range(args.repeat+1)][1:]
    beside = sum(sizes.values()) - sizes['model']
    times = spread([t for t,_ in starts], 2)
    memory = spread([m for _,m in starts], 0)
    print_table([dict(part=k, mb=round(v, 1)) for k,v in sizes.items()], 'What is pulled, compressed')
    rows = [dict(what='podman run to ready, s', value=times), dict(what='resident memory at most, MB', value=memory)]
    print_table(rows, f'The container, n={args.repeat}')
    say(f"\nbeside the model {beside:.0f} MB, bound {MOST_MB} MB: {'held' if beside<=MOST_MB else 'MISSED'}")
    ready = times['median']
    say(f"ready in {ready:.2f} s, bound {MOST_SECONDS:g} s: {'held' if ready<=MOST_SECONDS else 'MISSED'}")
    say(f'built in {seconds:.0f} s, downloads included')
    results = dict(base=BASE, mb={k: round(v, 1) for k,v in sizes.items()}, beside_model_mb=round(beside, 1),
        ready_seconds=times, memory_mb=memory, build_seconds=round(seconds))
    save('box', args, 'onnxruntime tokenizers numpy uvicorn fastapi', results)

if __name__=='__main__': main()
