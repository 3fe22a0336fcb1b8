"""What makes the engine fast, and what did not? One thing is changed at a time where that is possible, and every variant does the same work on the same texts, in turns.

Method: one process; every round asks each variant once for all texts, tokenizing and cleaning included; texts a second with their range, and the ratio to the default computed round by round.
`same labels` is the share of texts on which a variant agrees with the float graph. Variants of other libraries are tried where they are installed (`pip install openvino nncf`, and `torchao` with a C++ compiler); their int8 has its
ranges from the first hundred of the texts that are judged, which can only favour them.

    python benchmarks/engines.py --model models/quickstart --data data/quickstart
    python benchmarks/engines.py --model models/imdb-8000 --data data/imdb-nocad --limit 40 --part reviews --only 'pipeline, batch'
    python benchmarks/engines.py --model models/imdb-8000 --data data/imdb-nocad --limit 40 --part distilbert --shape distilbert --only 'pipeline, batch'
    python benchmarks/engines.py --limit 300 --part compiled --only compiled 'pipeline, batch' 'torch, batches'
"""
import argparse, importlib.util, json, statistics, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
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

def session_per_core(path, cores):
    "As many sessions as cores, each batch by one that is free"
    free = SimpleQueue()
    for _ in range(cores): free.put(runner(path))
    def run(batch):
        one = free.get()
        try: return one(batch)
        finally: free.put(one)
    return run

def ask_ahead(texts, run, encode_all, chunk=64):
    "Logits of all texts, each chunk tokenized and batched beside the computing of those before it"
    def part(i): return ask(texts[i:i+chunk], run, encode_all)
    with ThreadPoolExecutor(count_cpus()) as pool: return np.concatenate(list(pool.map(part, range(0, len(texts), chunk))))

def dynamic(path, out, per_channel=True): quantize_dynamic(path, out, per_channel=per_channel, weight_type=QuantType.QInt8, extra_options={'DefaultTensorType': onnx.TensorProto.FLOAT})

def bias_apart(path, out):
    "The int8 graph with each bias added by an operator of its own"
    model = onnx.load(path)
    nodes = model.graph.node
    for n in [n for n in nodes if n.op_type=='MatMulIntegerToFloat' and len(n.input)==7]:
        bias,whole = n.input.pop(), n.output[0]
        n.output[0] = f'{whole}_bare'
        nodes.insert(list(nodes).index(n)+1, onnx.helper.make_node('Add', [n.output[0], bias], [whole]))
    onnx.save(model, out)

def one_attention(path, out, heads):
    "The int8 graph with ONNX Runtime's operator for multi-head attention between the products with weights, in place of ten small ones"
    model = onnx.load(path)
    graph = model.graph
    graph.node.insert(0, onnx.helper.make_node('Cast', ['attention_mask'], ['keys'], to=onnx.TensorProto.INT32))
    makers,users = {x: n for n in graph.node for x in n.output}, {x: n for n in graph.node for x in n.input}
    def product(x): return x if makers[x].op_type=='MatMulIntegerToFloat' else product(makers[x].input[0])
    for softmax in [n for n in graph.node if n.op_type=='Softmax']:
        scores = next(makers[x] for x in makers[softmax.input[0]].input if x in makers and makers[x].op_type in ('MatMul','Mul','Div'))
        while scores.op_type!='MatMul': scores = makers[scores.input[0]]
        mixed = users[softmax.output[0]]
        end = users[users[mixed.output[0]].output[0]] # behind a transpose
        new = onnx.helper.make_node('MultiHeadAttention', [product(x) for x in (*scores.input, mixed.input[1])] + ['', 'keys'], end.output, domain='com.microsoft', num_heads=heads)
        graph.node.insert(list(graph.node).index(end), new)
        graph.node.remove(end)
    read = {'logits'}
    for n in reversed(graph.node): # in their order, so that a reader comes before what it reads
        if read & set(n.output): read |= set(n.input)
        else: graph.node.remove(n)
    onnx.save(model, out)

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
    heads = config.get('num_attention_heads') or config['n_heads']
    bias_apart(work/'float_int8.onnx', work/'apart_int8.onnx')
    if 'num_attention_heads' in config: one_attention(work/'float_int8.onnx', work/'attention_int8.onnx', heads) # DistilBERT scales before
    fused = optimizer.optimize_model(str(work/'whole.onnx'), 'bert', num_heads=heads, hidden_size=config.get('hidden_size') or config['dim'])
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

def compiled_run(model, samples, int8=False, bf16=False):
    "PyTorch's compiler with batch and length free; int8 by PyTorch 2 Export Quantization for x86, with ranges from samples"
    import torch
    from transformers import AutoModelForSequenceClassification
    from torch._inductor import config
    config.freezing = True # weights are packed once
    net,dims = AutoModelForSequenceClassification.from_pretrained(model).eval(), {0: torch.export.Dim('batch', min=1, max=4096), 1: torch.export.Dim('length', min=2, max=512)}
    tensors = lambda batch: {k: torch.from_numpy(v) for k,v in batch.items()}
    with torch.no_grad():
        graph = torch.export.export(net, (), tensors(_pad([[1,2,3]]*2)), dynamic_shapes={k: dims for k in samples[0]}).module()
        if int8:
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
            from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer, get_default_x86_inductor_quantization_config
            graph = prepare_pt2e(graph, X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config()))
            for s in samples: graph(**tensors(s))
            graph = convert_pt2e(graph)
    fast = torch.compile(graph, dynamic=True)
    def run(batch):
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16): return fast(**tensors(batch)).logits.float().numpy()
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
            'bias added apart': variant(runner(work/'apart_int8.onnx')),
            **({'one operator for attention': variant(runner(work/'attention_int8.onnx'))} if (work/'attention_int8.onnx').exists() else {}),
            'ranges from each batch': variant(runner(work/'dynamic_int8.onnx')),
            'ranges from each batch, int8 per tensor': variant(runner(work/'tensor_int8.onnx')),
            'ranges from each batch, fused attention (transformer optimizer)': variant(runner(work/'fused_int8.onnx', without=())),
            'one batch on all cores': variant(runner(work/'float_int8.onnx', threads=cores), each=map),
            'one core': variant(each=map),
            'batches of 32 as they come': variant(pack=in_order),
            'one session per core': variant(session_per_core(work/'float_int8.onnx', cores)),
            'tokenizing beside computing, 64 texts at a time': partial(ask_ahead, run=small, encode_all=encode_all),
            'a batch has no price': variant(pack=partial(pack_batches, price=0)),
            'no padding at all': variant(pack=one_length)}
        ways |= {f'{n:,} tokens a batch': variant(pack=partial(pack_batches, budget=n)) for n in (128, 512, 1024, 4096)}
        ways['torch, batches as the default, all cores'] = variant(torch_run(model), each=map)
        samples = [_pad([i]) for i in encode_all(texts[:100])]
        if importlib.util.find_spec('torchao'):
            for n,kind in {'float': {}, 'bfloat16': dict(bf16=True), 'int8': dict(int8=True), 'int8, the rest bfloat16': dict(int8=True, bf16=True)}.items():
                ways[f'torch, compiled, {n}'] = variant(compiled_run(model, samples, **kind), pack=partial(pack_batches, budget=512), each=map)
        pipelines = {f'pipeline, batch {b}, {t} thread{"s" if t>1 else ""}': pipeline_ask(model, record, b, t) for b in (1, 8, 32) for t in {1, cores}}
        ways |= pipelines
        if importlib.util.find_spec('openvino'):
            ways['OpenVINO, float'] = variant(openvino_run(work/'float.onnx', work, samples, False), each=map)
            if importlib.util.find_spec('nncf'): ways['OpenVINO, NNCF int8'] = variant(openvino_run(work/'float.onnx', work, samples, True), each=map)
        ways = {n: w for n,w in ways.items() if n in ('the default','float') or any(o in n for o in args.only) and not any(o in n for o in args.skip)}
        seconds,labels = {n: [] for n in ways}, {}
        for n,w in [*ways.items()]*2: labels[n] = w(texts).argmax(1) # not counted; twice, because PyTorch's compiler compiles once more when others have
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
    save('engines', args, 'onnxruntime tokenizers onnx torch transformers openvino nncf torchao', dict(texts=len(texts), tokens=float(np.mean([len(i) for i in ids])), tokenizing_share=share, rows=rows), args.part)

if __name__=='__main__': main()
