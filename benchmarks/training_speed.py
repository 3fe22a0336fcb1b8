"""Does fine-tuning keep its speed over a run? And what do flushed denormals, no attention dropout and bfloat16 give?

Method: `train_transformer` with MiniLM, every mode in a fresh process. Real tokens (the sum of the attention mask)
over the time of the steps alone, without loading data, checkpoints and validation; `cpu_change` is the same by CPU
time of all threads, which other processes disturb less. Batches are grouped by length, long ones first within each
quarter of an epoch; with 2.5 epochs a tenth of the run is one such quarter, so that tenths hold texts drawn alike and
may be compared. The first two steps warm up and are not counted.

- `tweets`: 2,560 embedded tweets, 200 steps of 32. Modes: `package` (as a command runs it: denormals are flushed
  before torch starts its worker threads), `late` (torch has worked before, as in a notebook: what the switch reaches
  then), `off` (never flushed: what a plain `Trainer` does).
- `reviews`: IMDb's long reviews (SENTIMENT_NB_DATA), 256 tokens, 32 a step, one process; attention dropout changes
  between 0 and 0.1 with every step.
- `bf16`: the same reviews without and with `--bf16`, in processes that take turns; needs a processor that has
  bfloat16 products.

    SENTIMENT_NB_DATA=FOLDER python benchmarks/training_speed.py
    python benchmarks/training_speed.py --part package      # in pieces; the others stay as they were
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np
from common import print_table, save, say, spread

BOUND = .15 # Last tenth against the first
FLUSH = 'package', 'late', 'off'

def meter(toggle=False):
    "A callback that notes tokens and seconds of each step; with `toggle` it switches attention dropout on for every other step"
    from transformers import TrainerCallback
    class Meter(TrainerCallback):
        def __init__(self):
            self.tokens = []
            self.padded = []
            self.seconds = []
            self.cpu = []
            self.dropout = []
        def on_train_begin(self, args, state, control, model=None, **kw):
            model.register_forward_pre_hook(self.count, with_kwargs=True)
            self.attention = [m.dropout for n,m in model.named_modules() if n.endswith('attention.self')]
        def count(self, model, args, kwargs):
            if not model.training: return
            mask = kwargs['attention_mask']
            self.now = int(mask.sum()), mask.numel()
        def on_step_begin(self, args, state, control, **kw):
            p = .1*(state.global_step%2) if toggle else 0.
            if toggle:
                for m in self.attention: m.p = p
            self.dropout.append(p)
            self.start = time.perf_counter(), time.process_time()
        def on_step_end(self, args, state, control, **kw):
            self.seconds.append(time.perf_counter()-self.start[0])
            self.cpu.append(time.process_time()-self.start[1])
            self.tokens.append(self.now[0])
            self.padded.append(self.now[1])
    return Meter()

def flushing(mode):
    "Set the scene for one mode; returns the share of subnormal results that are flushed, seen from all threads"
    import torch
    if mode=='late': torch.ones(4_000_000).mul_(2)
    if mode=='off': torch.set_flush_denormal = lambda on: True
    def share():
        torch.set_flush_denormal(True)
        x = torch.full((4_000_000,), 1e-30)
        return 1 - float(((x*1e-10).view(torch.int32)!=0).double().mean())
    return share

def write_reviews(path, n, seed):
    "Reviews too long for 256 tokens, as CSV"
    from sentiment_nb.data import load_source
    import pandas as pd
    df = load_source('imdb')['train'].shuffle(seed=seed).select(range(5000)).to_pandas()
    df = df[df['text'].str.len()>2000].head(n)
    pd.DataFrame({'text': df['text'], 'label': df['label']}).to_csv(path, index=False)

def measure(mode, steps, seed):
    "One run, in this process"
    share = flushing(mode)
    from sentiment_nb.cleaning import prepare_data
    from sentiment_nb.training import train_transformer
    with tempfile.TemporaryDirectory() as d:
        if mode in FLUSH:
            prepare_data('tweets', f'{d}/data', sizes=(.01, 0), seed=seed)
            settings = dict(epochs=2.5, limit=int(steps*32/2.5), max_length=128)
        else:
            write_reviews(f'{d}/reviews.csv', steps*32+200, seed)
            prepare_data(f'{d}/reviews.csv', f'{d}/data', sizes=(.1, 0), seed=seed)
            settings = dict(epochs=1, limit=steps*32, max_length=256)
        m = meter(mode=='reviews')
        train_transformer(f'{d}/data', f'{d}/model', 'minilm', **settings, patience=99, seed=seed, bf16=mode=='bf16',
            callbacks=(m,))
    import torch
    print(json.dumps(dict(threads=torch.get_num_threads(), flushed=share(), tokens=m.tokens, padded=m.padded,
        seconds=m.seconds, cpu=m.cpu, dropout=m.dropout)))

def run(mode, steps, seed):
    env = os.environ | dict(HF_HUB_OFFLINE='1')
    command = [sys.executable, __file__, '--measure', mode, '--steps', str(steps), '--seed', str(seed)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode: raise SystemExit(f'{mode} failed')
    return json.loads(done.stdout.splitlines()[-1])

def tenths(r, clock): # Tokens per second of each tenth of the run
    "Speed over the run, by `seconds` or by `cpu`"
    def split(values):
        parts = np.split(np.array(values, float), 10)
        parts[0] = parts[0][2:] # without the steps that warm up
        return parts
    return [round(tokens.sum()/times.sum()) for tokens,times in zip(split(r['tokens']), split(r[clock]))]

def change(values): return round(values[-1]/values[0]-1, 3)

def tweets(mode, steps, seed):
    "The run of one mode, in a row"
    r = run(mode, steps, seed)
    speed = tenths(r, 'seconds')
    cpu = tenths(r, 'cpu')
    tokens = sum(r['tokens'])
    seconds = sum(r['seconds'])
    row = dict(mode=mode, threads=r['threads'], steps=len(r['seconds']), flushed=round(r['flushed'], 2),
        first_tenth=speed[0], last_tenth=speed[-1], change=change(speed), cpu_change=change(cpu),
        overall=round(tokens/seconds), minutes=round(seconds/60, 2))
    print_table([row], 'Tweets: real tokens per second')
    say(f'each tenth: {speed}')
    result_row = row | dict(tenths=speed, tenths_cpu=cpu, padding=round(1-tokens/sum(r['padded']), 3),
        seconds_per_step=[round(s, 3) for s in r['seconds']], tokens_per_step=r['tokens'])
    return dict(result=result_row, bound=BOUND, within_bound=abs(row['change'])<=BOUND)

def token_speeds(r, steps): return [r['tokens'][i]/r['seconds'][i] for i in steps]

def reviews(steps, seed):
    "Attention dropout off and on, step by step; the first two steps warm up"
    r = run('reviews', steps, seed)
    rows = []
    for p in (0., .1):
        use = full_steps(r, p)
        rows.append(dict(attention_dropout=p, threads=r['threads'], steps=len(use),
            tokens_per_s=spread(token_speeds(r, use), 0),
            seconds_per_step=spread([r['seconds'][i] for i in use], 2),
            cpu_per_step=spread([r['cpu'][i] for i in use], 2)))
    print_table(rows, 'Reviews, 32 of 256 tokens a step')
    without,with_dropout = (row['tokens_per_s']['median'] for row in rows)
    return dict(results=rows, faster=round(without/with_dropout-1, 3))

def full_steps(r, dropout=0.):
    "Which steps have no padding, behind the two that warm up"
    def is_full(i): return abs(r['dropout'][i]-dropout)<1e-9 and r['tokens'][i]==32*256
    return [i for i in range(2, len(r['seconds'])) if is_full(i)]

def bf16(steps, seed, rounds=3):
    "Without and with bfloat16 products, in turn"
    runs = {m: [] for m in ('float','bf16')}
    for _ in range(rounds):
        for m in runs: runs[m].append(run(m, steps, seed))
    speeds = {m: [token_speeds(r, full_steps(r)) for r in rs] for m,rs in runs.items()}
    rows = []
    for m,v in speeds.items():
        steps_of_all = sum(v, [])
        rows.append(dict(mode=m, runs=rounds, steps=len(steps_of_all), tokens_per_s=spread(steps_of_all, 0)))
    times = spread([float(np.median(b)/np.median(f)) for f,b in zip(speeds['float'], speeds['bf16'])], 2)
    print_table(rows, 'Reviews, 32 of 256 tokens a step')
    say(f"with --bf16 {times['median']} ({times['low']} to {times['high']}) times as fast")
    return dict(results=rows, times=times)

REVIEWS = dict(reviews=reviews, bf16=bf16)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--part', choices=[*FLUSH, *REVIEWS], help='only this part')
    p.add_argument('--steps', type=int, default=200, help='of the tweets; a multiple of 50')
    p.add_argument('--review-steps', type=int, default=16)
    p.add_argument('--seed', type=int, default=42)
    p.add_argument('--measure', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure: return measure(args.measure, args.steps, args.seed)
    parts = [*FLUSH, *REVIEWS] if os.environ.get('SENTIMENT_NB_DATA') else FLUSH
    for part in [args.part] if args.part else parts:
        if part in REVIEWS: results = REVIEWS[part](args.review_steps, args.seed)
        else: results = tweets(part, args.steps, args.seed)
        save('training_speed', args, 'torch transformers accelerate numpy', results, part=part)

if __name__=='__main__': main()
