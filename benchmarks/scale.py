"""Does a million texts' work survive kills, in flat memory, and what does that cost beside the engine in memory?

Method of `kill`: a tiny random encoder, and real tweets with variations in a CSV. One run is left alone and reports its
resident memory every 2,048 rows. One is killed by SIGKILL at three random moments, and once as a machine stops: its whole
group of processes, with a part and a line of the manifest left half on the disk. One is killed at 65 % of its rows, and
the rest is timed. All three must give the same bytes. Each step is kept in the folder `--work`: the same command
goes on with the next one.

Method of `throughput`: the same texts by `Predictor.predict` on a list, and by `predict_file` from CSV to CSV, taking turns.

    python benchmarks/scale.py --part kill --rows 1000000
    python benchmarks/scale.py --part throughput --model models/quickstart --rows 20000
"""
import argparse, hashlib, json, os, random, signal, statistics, subprocess, sys, tempfile, time
from pathlib import Path
from common import print_table, save, say, spread
from sentiment_nb.core import ModelRecord, write_checksums, write_json
from sentiment_nb.data import load_tweets
from sentiment_nb.inference import Predictor, export_onnx
from sentiment_nb.scale import MANIFEST, Manifest, predict_file
from sentiment_nb.tables import read_rows, write_rows

def tiny_model(folder, texts):
    "A tiny random BERT, exported: what it says means nothing"
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
    torch.manual_seed(0)
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(texts, vocab_size=2000, show_progress=False)
    config = BertConfig(vocab_size=pieces.get_vocab_size(), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=.4)
    BertForSequenceClassification(config).save_pretrained(folder)
    special = dict(unk_token='[UNK]', pad_token='[PAD]', cls_token='[CLS]', sep_token='[SEP]')
    PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, **special).save_pretrained(folder)
    ModelRecord('transformer', 'random', ['negative', 'positive'], max_length=64).save(folder)
    write_checksums(folder)
    export_onnx(folder, texts[:400])

def varied(texts, n, seed):
    "`n` rows: real texts, each with a number and a word of another"
    rng = random.Random(seed)
    for i in range(n):
        words = rng.choice(texts).split()
        words.insert(rng.randrange(len(words)+1), rng.choice(texts).split()[0])
        yield {'id': i, 'text': f"{' '.join(words)} {rng.randrange(10_000)}"}

def resident():
    "Resident memory of this process, in MB"
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmRSS'))/1024

def run_child(model, source, out):
    "Predict a file, and print the seconds and the resident memory over the rows"
    predictor = Predictor(model)
    memory = []
    start = time.perf_counter()
    predict_file(predictor, source, out, report=lambda rows, total: memory.append((rows, round(resident(), 1))))
    print(json.dumps(dict(seconds=time.perf_counter()-start, memory=memory)))

def start(work, out):
    command = [sys.executable, __file__, '--child', str(work/'model'), str(work/'in.csv'), str(work/out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

def finish(work, out):
    "The same command to its end; its seconds, loading included, and what it printed"
    begin = time.perf_counter()
    p = start(work, out)
    printed = p.communicate()[0]
    assert p.returncode==0
    return time.perf_counter()-begin, json.loads(printed.splitlines()[-1])

def finished_rows(work, out): return Manifest(work/f'{out}.partial'/MANIFEST).total('rows')

def kill_at(work, out, rows):
    "Start the command and kill its group of processes when so many rows are finished; how many were"
    p = start(work, out)
    while finished_rows(work, out)<rows:
        assert p.poll() is None, 'it ended before it could be killed'
        time.sleep(.01)
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    return finished_rows(work, out)

def tear(work, out):
    "Leave a part and a line of the manifest half on the disk"
    folder = work/f'{out}.partial'
    n = len(Manifest(folder/MANIFEST).parts)
    (folder/f'part-00000-{n:06}.csv').write_text('id,te')
    with open(folder/MANIFEST, 'a') as f: f.write('{"part": [0, ')

def digest(path):
    with open(path, 'rb') as f: return hashlib.file_digest(f, 'sha256').hexdigest()

# Steps of `kill`, each of which returns what it measured

def make_input(work, args):
    texts = load_tweets()['text'][:]
    tiny_model(work/'model', texts[:4000])
    write_rows(work/'in.csv', ['id', 'text'], varied(texts, args.rows, args.seed), None)
    return dict(rows=args.rows, bytes=(work/'in.csv').stat().st_size)

def leave_alone(work, args):
    seconds, printed = finish(work, 'alone.csv')
    memory = printed['memory']
    later = [mb for rows,mb in memory if rows>=50_000]
    return dict(seconds=seconds, memory=memory[::max(1, len(memory)//100)], mb_at_50_000=later[0],
        mb_afterwards=[min(later), max(later)], sha256=digest(work/'alone.csv'))

def kill_three_times(work, args):
    rng = random.Random(args.seed)
    shares = sorted(rng.uniform(.05, .9) for _ in range(4))
    killed = [kill_at(work, 'killed.csv', share*args.rows) for share in shares]
    tear(work, 'killed.csv')
    finish(work, 'killed.csv')
    ids = [int(row['id']) for row in read_rows(work/'killed.csv', 'text')[2]]
    left = [p.name for p in work.glob('killed*')]
    in_order = ids==list(range(args.rows))
    return dict(killed_at_rows=killed, sha256=digest(work/'killed.csv'), in_order=in_order, left=left)

def kill_at_65(work, args):
    rows = kill_at(work, 'late.csv', .65*args.rows)
    seconds, _ = finish(work, 'late.csv')
    return dict(killed_at_rows=rows, seconds=seconds, sha256=digest(work/'late.csv'))

STEPS = {'input': make_input, 'alone': leave_alone, 'killed': kill_three_times, 'late': kill_at_65}

def measure_kills(args):
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    log = work/'steps.json'
    steps = json.loads(log.read_text()) if log.exists() else {}
    for name,step in STEPS.items():
        if name not in steps:
            steps[name] = step(work, args)
            write_json(log, steps)
    alone, killed, late = (steps[n] for n in ('alone', 'killed', 'late'))
    low, high = alone['mb_afterwards']
    say(f"{args.rows:,} texts, {steps['input']['bytes']/1e6:.0f} MB: {alone['seconds']:.0f} s, {args.rows/alone['seconds']:,.0f} rows/s")
    print_table([dict(rows=rows, resident_mb=mb) for rows,mb in alone['memory'][::10]], 'resident memory')
    say(f"\nfrom 50,000 rows on {low:.1f} to {high:.1f} MB; {alone['mb_at_50_000']:.1f} at 50,000 rows "
        f"({100*(high/alone['mb_at_50_000']-1):+.1f} %)")
    say(f"killed at {', '.join(f'{n:,}' for n in killed['killed_at_rows'])} rows, then a part and the manifest torn: "
        f"rows in order {killed['in_order']}, same bytes {killed['sha256']==alone['sha256']}, left {killed['left']}")
    say(f"killed at {late['killed_at_rows']/args.rows:.0%}: the rest took {late['seconds']/alone['seconds']:.0%} of the whole time, "
        f"loading included; same bytes {late['sha256']==alone['sha256']}")
    return steps

def timed(job):
    begin = time.perf_counter()
    job()
    return time.perf_counter()-begin

def measure_throughput(args):
    predictor = Predictor(args.model)
    rows = list(varied(load_tweets()['text'][:], args.rows, args.seed))
    texts = [r['text'] for r in rows]
    with tempfile.TemporaryDirectory() as d:
        write_rows(f'{d}/in.csv', ['id', 'text'], rows, None)
        jobs = {'in memory': lambda: list(predictor.predict_iter(texts)),
            'from file to file': lambda: predict_file(predictor, f'{d}/in.csv', f'{d}/out.csv')}
        seconds = {n: [] for n in jobs}
        for _ in range(args.repeats):
            for name,job in jobs.items(): seconds[name].append(timed(job))
    medians = {n: statistics.median(s) for n,s in seconds.items()}
    table = [dict(way=n, seconds=spread(seconds[n]), texts_per_second=round(args.rows/m)) for n,m in medians.items()]
    print_table(table, f'{args.rows:,} texts')
    share = medians['in memory']/medians['from file to file']
    say(f'\nfrom file to file: {share:.1%} of the throughput in memory')
    return dict(seconds=seconds, share=share)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--part', choices=('kill', 'throughput'), default='kill')
    p.add_argument('--rows', type=int, default=1_000_000)
    p.add_argument('--model', default='models/quickstart', help='of `throughput`')
    p.add_argument('--work', default='data/scale-work', help='folder for files and finished steps; delete it to begin anew')
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child: return run_child(*args.child)
    measured = {'kill': measure_kills, 'throughput': measure_throughput}[args.part](args)
    save('scale', args, 'onnxruntime pyarrow', measured, args.part)

if __name__=='__main__': main()
