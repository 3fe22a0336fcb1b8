"What every benchmark records: hardware, versions, command, date, seed; and a readable table"
import json, os, platform, shlex, shutil, statistics, sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent/'results'
LINES = [] # What was printed since the last `save`
# Busy processes in the minute before; above 0.5 timings are upper bounds
LOAD = round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None

def say(line:str=''):
    "Print a line, and keep it for the text beside the JSON"
    print(line, flush=True)
    LINES.append(line)

def hardware() -> dict: # CPU model, cores this process may use, memory in GiB, system, Python
    "The machine, in words"
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [l.partition(':')[2].strip() for l in lines if l.startswith('model name')]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    memory = os.sysconf('SC_PAGE_SIZE')*os.sysconf('SC_PHYS_PAGES')/2**30 if hasattr(os, 'sysconf') else None
    return dict(cpu=models[0] if models else platform.processor(), cores=cores, memory_gib=memory and round(memory, 1),
        system=f'{platform.system()} {platform.machine()}', python=platform.python_version())

def _version(package):
    try: return version(package)
    except PackageNotFoundError: return None

def peak_memory() -> int: # Bytes
    "Highest resident memory of this process so far (Linux's VmHWM; elsewhere getrusage)"
    status = Path('/proc/self/status')
    if status.exists():
        line = next(l for l in status.read_text().splitlines() if l.startswith('VmHWM'))
        return int(line.split()[1])*1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform=='darwin' else 1024)

def spread(
    values:list[float], # Repetitions of one measurement
    digits:int=3, # After the point
) -> dict: # median, low, high, n
    "Median and range"
    median = statistics.median(values)
    return dict(median=round(median, digits), low=round(min(values), digits), high=round(max(values), digits),
        n=len(values))

def print_table(
    rows:list[dict], # One dict per row, same keys; a `spread` shows as median (low to high)
    title:str='', # Printed above
):
    "Columns as wide as they need to be"
    def show(v):
        if isinstance(v, dict): return f"{show(v['median'])} ({show(v['low'])} to {show(v['high'])})"
        if isinstance(v, bool) or not isinstance(v, (int, float)): return str(v)
        if isinstance(v, float) and abs(v)<100: return f'{v:,.3f}'.rstrip('0').rstrip('.')
        return f'{v:,.0f}'
    cells = [list(rows[0]), *[[show(v) for v in r.values()] for r in rows]]
    widths = [max(map(len, c)) for c in zip(*cells)]
    say()
    if title: say(title)
    for first,*others in cells:
        columns = [first.ljust(widths[0]), *(c.rjust(w) for c,w in zip(others, widths[1:]))]
        say('  '.join(columns).rstrip())

def describe_run(args, packages):
    "Command, date, seed, load, hardware and versions"
    command = ['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]]
    return dict(command=shlex.join(command), date=datetime.now(timezone.utc).strftime('%Y-%m-%d'),
        seed=getattr(args, 'seed', None), load_before=LOAD, hardware=hardware(),
        versions={p: _version(p) for p in ('sentiment_nb', *packages.split())})

def format_run(facts):
    "The two lines above what was printed"
    machine = facts['hardware']
    seed = '' if facts['seed'] is None else ', seed %d' % facts['seed']
    return (f"{facts['command']}\n"
        f"{facts['date']}, {machine['cpu']}, {machine['cores']} cores, load before {LOAD}, "
        f"Python {machine['python']}{seed}\n")

def save(
    name:str, # File name in `results`, without suffix
    args, # What argparse gave
    packages:str, # Names of the packages that matter, with spaces between them
    results:dict, # Measurements
    part:str|None=None, # Renew only this part of an earlier file, for benchmarks that run in pieces
):
    "Write `results/NAME.json`, and beside it what was printed"
    path = RESULTS/f'{name}.json'
    RESULTS.mkdir(exist_ok=True)
    facts = describe_run(args, packages)
    old = json.loads(path.read_text(encoding='utf-8')) if part and path.exists() else {}
    new = old | {part: facts | results} if part else facts | results
    path.write_text(json.dumps(new, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    text = path.with_name(f"{name}{'-' + part if part else ''}.txt")
    text.write_text(format_run(facts) + '\n'.join(LINES) + '\n', encoding='utf-8')
    LINES.clear()
    print(f'\nwritten to benchmarks/results/{path.name} and {text.name}')

def random_distilbert(
    model:str|Path, # A model folder, whose tokenizer and record are taken
    folder:str|Path, # To write to
    record, # The `ModelRecord` of `model`
) -> str|Path: # `folder`
    "A network of DistilBERT's size with random weights: what it says means nothing, what it costs is right"
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification
    torch.manual_seed(0)
    names = dict(enumerate(record.labels))
    config = DistilBertConfig(num_labels=len(names), id2label=names, label2id={n: i for i,n in names.items()})
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    for f in ('tokenizer.json', 'tokenizer_config.json', 'sentiment_nb.json'):
        shutil.copyfile(Path(model)/f, Path(folder)/f)
    return folder
