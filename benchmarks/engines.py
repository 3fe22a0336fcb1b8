"""What makes the engine fast, and what did not? One thing is changed at a time, and every variant does the same work on the same texts, in turns.

Method: one process; every round asks each variant once for all texts, tokenizing and cleaning included; texts a second with their range, and the ratio to the default computed round by round.
`same labels` is the share of texts on which a variant agrees with the float graph. Variants of other libraries are tried where they are installed (`pip install openvino nncf`).

    python benchmarks/engines.py --model models/quickstart --data data/quickstart
    python benchmarks/engines.py --model models/imdb-256 --data data/imdb --limit 100 --part reviews --skip pipeline
    python benchmarks/engines.py --model models/imdb-256 --data data/imdb --limit 100 --part distilbert --shape distilbert --only 'pipeline, batch'
"""
import argparse, importlib.util, json, statistics, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from common import print_table, random_distilbert, save, say, spread
from tokenizers import Tokenizer
from sentiment_nb.cleaning import clean_text
from sentiment_nb.core import ModelRecord
from sentiment_nb.data import load_prepared
from sentiment_nb.inference import _pad, _quantize, _token_ids, count_cpus, keep_first_token, pack_batches
from sentiment_nb.training import torch_to_onnx

def session(path, threads=1, without=('SkipLayerNormFusion',)):
    options = ort.SessionOptions()
    options.intra_op_num_threads,options.log_severity_level = threads,3
    return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'], disabled_optimizers=list(without))

def in_order(lengths, size=32): return [list(range(i, min(i+size, len(lengths)))) for i in range(0, len(lengths), size)]

def one_length(lengths, budget=256):
    "Batches without any padding"
    found = []
    for n in sorted(set(lengths)):
        rows = [i for i,l in enumerate(lengths) if l==n]
        step = max(1, budget//n)
        found += [rows[i:i+step] for i in range(0, len(rows), step)]
    return found

def ask(texts, run, encode_all, pack=pack_batches, each=map):
    "Logits of all texts, in their order"
    ids = encode_all(texts)
    batches = pack([len(i) for i in ids])
    found = list(each(lambda rows: run(_pad([ids[i] for i in rows])), batches))
    return np.concatenate(found)[np.argsort(np.concatenate(batches))]

def runner(path, **kw):
    s = session(path, **kw)
    return lambda batch: s.run(None, batch)[0]

def dynamic(path, out, per_channel=True): quantize_dynamic(path, out, per_channel=per_channel, weight_type=QuantType.QInt8, extra_options={'DefaultTensorType': onnx.TensorProto.FLOAT})

def graphs(model, work, ids):
    "ONNX files: whole and pruned, float and int8, and fused by ONNX Runtime's transformer optimizer"
    torch_to_onnx(model, work/'whole.onnx')
    graph = onnx.load(work/'whole.onnx')
    if not keep_first_token(graph): raise SystemExit('the pattern of the last layer was not found')
    onnx.save(graph, work/'float.onnx')
    for n in ('whole','float'): _quantize(work/f'{n}.onnx', work/f'{n}_int8.onnx', ids)
    dynamic(work/'float.onnx', work/'dynamic_int8.onnx')
    dynamic(work/'float.onnx', work/'tensor_int8.onnx', per_channel=False)
    config = json.loads((Path(model)/'config.json').read_text(encoding='utf-8'))
    fused = optimizer.optimize_model(str(work/'whole.onnx'), 'bert', num_heads=config.get('num_attention_heads') or config['n_heads'], hidden_size=config.get('hidden_size') or config['dim'])
    fused.save_model_to_file(str(work/'fused.onnx'))
    dynamic(work/'fused.onnx', work/'fused_int8.onnx')

def torch_run(model):
    import torch
    from transformers import AutoModelForSequenceClassification
    net = AutoModelForSequenceClassification.from_pretrained(model).eval()
    def run(batch):
        with torch.inference_mode(): return net(**{k: torch.from_numpy(v) for k,v in batch.items()}).logits.numpy()
    return run

def pipeline_ask(model, record, batch_size, threads):
    "`transformers.pipeline` behind the same cleaning"
    import torch
    from transformers import pipeline
    pipe = pipeline('text-classification', str(model), device='cpu', top_k=None, truncation=True, max_length=record.max_length, batch_size=batch_size)
    def run(texts):
        torch.set_num_threads(threads)
        found = pipe([clean_text(t, record.policy) for t in texts])
        return np.array([[{c['label']: c['score'] for c in row}[n] for n in record.labels] for row in found])
    return run

def openvino_run(path, work, samples, int8):
    "OpenVINO with shapes rounded up to buckets, since it compiles anew for each shape; int8 by NNCF's post-training quantization"
    import openvino as ov
    core,net = ov.Core(), ov.convert_model(str(path))
    if int8:
        import nncf
        net = nncf.quantize(net, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
    compiled = core.compile_model(net, 'CPU', {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': count_cpus()})
    def run(batch):
        n,length = batch['input_ids'].shape
        cols = -(-length//16)*16
        rows = max(n, 256//cols)
        padded = {k: np.pad(v, ((0, rows-n), (0, cols-length))) for k,v in batch.items()}
        return compiled(padded)[0][:n]
    return run

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/quickstart')
    p.add_argument('--data', default='data/quickstart')
    p.add_argument('--limit', type=int, default=1000, help='texts of the validation split')
    p.add_argument('--shape', choices=['distilbert'], help='a random network of this size instead of the model, with its tokenizer')
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--part', default='tweets')
    p.add_argument('--only', nargs='*', default=[''], help='parts of the names of variants to try')
    p.add_argument('--skip', nargs='*', default=[], help='parts of the names of variants to leave out')
    args = p.parse_args()
    record,cores = ModelRecord.load(args.model), count_cpus()
    texts = load_prepared(args.data)['validation'].shuffle(seed=0)['text'][:args.limit]
    tokenizer = Tokenizer.from_file(f'{args.model}/tokenizer.json')
    encode_all = partial(_token_ids, record, tokenizer)
    with tempfile.TemporaryDirectory() as d:
        work = Path(d)
        if args.shape: (work/'random').mkdir()
        model = random_distilbert(args.model, work/'random', record) if args.shape else args.model
        graphs(model, work, encode_all(load_prepared(args.data)['train'].shuffle(seed=0)['text'][:250]))
        side = ThreadPoolExecutor(cores).map
        small = runner(work/'float_int8.onnx')
        def variant(run=small, pack=pack_batches, each=side): return partial(ask, run=run, encode_all=encode_all, pack=pack, each=each)
        ways = {'the default': variant(),
            'float': variant(runner(work/'float.onnx')),
            'last layer for all tokens': variant(runner(work/'whole_int8.onnx')),
            'fused sum and layer norm': variant(runner(work/'float_int8.onnx', without=())),
            'ranges from each batch': variant(runner(work/'dynamic_int8.onnx')),
            'ranges from each batch, int8 per tensor': variant(runner(work/'tensor_int8.onnx')),
            'ranges from each batch, fused attention (transformer optimizer)': variant(runner(work/'fused_int8.onnx', without=())),
            'one batch on all cores': variant(runner(work/'float_int8.onnx', threads=cores), each=map),
            'one core': variant(each=map),
            'batches of 32 as they come': variant(pack=in_order),
            'no padding at all': variant(pack=one_length)}
        ways |= {f'{n:,} tokens a batch': variant(pack=partial(pack_batches, budget=n)) for n in (128, 512, 1024, 4096)}
        ways['torch, batches as the default, all cores'] = variant(torch_run(model), each=map)
        pipelines = {f'pipeline, batch {b}, {t} thread{"s" if t>1 else ""}': pipeline_ask(model, record, b, t) for b in (1, 8, 32) for t in {1, cores}}
        ways |= pipelines
        if importlib.util.find_spec('openvino'):
            samples = [_pad([i]) for i in encode_all(texts[:100])]
            ways['OpenVINO, float'] = variant(openvino_run(work/'float.onnx', work, samples, False), each=map)
            if importlib.util.find_spec('nncf'): ways['OpenVINO, NNCF int8'] = variant(openvino_run(work/'float.onnx', work, samples, True), each=map)
        ways = {n: w for n,w in ways.items() if n in ('the default','float') or any(o in n for o in args.only) and not any(o in n for o in args.skip)}
        seconds,labels = {n: [] for n in ways}, {}
        for n,w in ways.items(): labels[n] = w(texts).argmax(1) # not counted
        for _ in range(args.rounds):
            for n,w in ways.items():
                start = time.perf_counter()
                w(texts)
                seconds[n].append(time.perf_counter()-start)
        start = time.perf_counter()
        ids = encode_all(texts)
        share = (time.perf_counter()-start)/statistics.median(seconds['the default'])
    best = min((seconds[n] for n in pipelines if n in seconds), key=statistics.median, default=None)
    rows = [{'variant': n, 'texts/s': spread([len(texts)/s for s in ss], 1), 'times the default': spread([b/s for b,s in zip(seconds['the default'], ss)], 2), **({'times the best pipeline': spread([b/s for b,s in zip(best, ss)], 2)} if best else {}), 'same labels': float((labels[n]==labels['float']).mean())} for n,ss in seconds.items()]
    say(f'{len(texts):,} texts of {np.mean([len(i) for i in ids]):.0f} tokens, {args.rounds} rounds, {cores} cores; cleaning and tokenizing take {share:.1%} of the default\'s time')
    print_table(rows)
    save('engines', args, 'onnxruntime tokenizers onnx torch transformers openvino nncf', dict(texts=len(texts), tokens=float(np.mean([len(i) for i in ids])), tokenizing_share=share, rows=rows), args.part)

if __name__=='__main__': main()
