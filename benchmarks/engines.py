r"""What makes the engine fast, and what did not?

One thing is changed at a time where that is possible, and every variant does the same work on the same texts, in
turns.

Method: one process; every round runs each variant once on all texts, tokenizing and cleaning included; texts a second
with their range, and the ratio to the default computed round by round. `same labels` is the share of texts on which a
variant agrees with the float graph. Variants of other libraries are tried where they are installed (`pip install
openvino nncf`, and `torchao` with a C++ compiler); their int8 has its ranges from the first hundred of the texts that
are judged, which can only favour them.

    python benchmarks/engines.py --model models/quickstart --data data/quickstart
    python benchmarks/engines.py --model models/imdb-8000 --data data/imdb-nocad --limit 40 --part reviews \
        --only 'pipeline, batch'
    python benchmarks/engines.py --model models/imdb-8000 --data data/imdb-nocad --limit 40 --part distilbert \
        --shape distilbert --only 'pipeline, batch'
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
from sentiment_nb.core import ModelRecord, count_cpus
from sentiment_nb.data import load_prepared
from sentiment_nb.inference import pack_batches, pad_batch, prune_to_cls, quantize, token_ids
from sentiment_nb.training import torch_to_onnx

def session(path, threads=1, without=('SkipLayerNormFusion',)):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'],
        disabled_optimizers=list(without))

def in_order(lengths, size=32):
    n = len(lengths)
    return [list(range(i, min(i+size, n))) for i in range(0, n, size)]

def one_length(lengths, budget=256):
    "Batches without any padding"
    batches = []
    for n in sorted(set(lengths)):
        rows = [i for i,l in enumerate(lengths) if l==n]
        step = max(1, budget//n)
        batches += [rows[i:i+step] for i in range(0, len(rows), step)]
    return batches

def ask(texts, run, encode_all, pack=pack_batches, each=map):
    "Logits of all texts, in their order"
    ids = encode_all(texts)
    batches = pack([len(i) for i in ids])
    logits = list(each(lambda rows: run(pad_batch([ids[i] for i in rows])), batches))
    return np.concatenate(logits)[np.argsort(np.concatenate(batches))]

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
    with ThreadPoolExecutor(count_cpus()) as pool:
        return np.concatenate(list(pool.map(part, range(0, len(texts), chunk))))

def dynamic(path, out, per_channel=True):
    quantize_dynamic(path, out, per_channel=per_channel, weight_type=QuantType.QInt8,
        extra_options={'DefaultTensorType': onnx.TensorProto.FLOAT})

def bias_apart(path, out):
    "The int8 graph with each bias added by an operator of its own"
    model = onnx.load(path)
    nodes = model.graph.node
    for n in [n for n in nodes if n.op_type=='MatMulIntegerToFloat' and len(n.input)==7]:
        bias = n.input.pop()
        whole = n.output[0]
        n.output[0] = f'{whole}_bare'
        nodes.insert(list(nodes).index(n)+1, onnx.helper.make_node('Add', [n.output[0], bias], [whole]))
    onnx.save(model, out)

def one_attention(path, out, heads):
    """The int8 graph with ONNX Runtime's operator for multi-head attention between the products with weights

    It stands in place of ten small ones.
    """
    model = onnx.load(path)
    graph = model.graph
    graph.node.insert(0, onnx.helper.make_node('Cast', ['attention_mask'], ['keys'], to=onnx.TensorProto.INT32))
    makers = {x: n for n in graph.node for x in n.output}
    users = {x: n for n in graph.node for x in n.input}
    def product(x): return x if makers[x].op_type=='MatMulIntegerToFloat' else product(makers[x].input[0])
    for softmax in [n for n in graph.node if n.op_type=='Softmax']:
        inputs = [makers[x] for x in makers[softmax.input[0]].input if x in makers]
        scores = next(n for n in inputs if n.op_type in ('MatMul','Mul','Div'))
        while scores.op_type!='MatMul': scores = makers[scores.input[0]]
        mixed = users[softmax.output[0]]
        end = users[users[mixed.output[0]].output[0]] # behind a transpose
        products = [product(x) for x in (*scores.input, mixed.input[1])]
        new = onnx.helper.make_node('MultiHeadAttention', [*products, '', 'keys'], end.output,
            domain='com.microsoft', num_heads=heads)
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
    if not prune_to_cls(graph): raise SystemExit('the pattern of the last layer was not found')
    onnx.save(graph, work/'float.onnx')
    for n in ('whole','float'): quantize(work/f'{n}.onnx', work/f'{n}_int8.onnx', ids)
    dynamic(work/'float.onnx', work/'dynamic_int8.onnx')
    dynamic(work/'float.onnx', work/'tensor_int8.onnx', per_channel=False)
    config = json.loads((Path(model)/'config.json').read_text(encoding='utf-8'))
    heads = config.get('num_attention_heads') or config['n_heads']
    bias_apart(work/'float_int8.onnx', work/'apart_int8.onnx')
    if 'num_attention_heads' in config: # DistilBERT scales before
        one_attention(work/'float_int8.onnx', work/'attention_int8.onnx', heads)
    hidden_size = config.get('hidden_size') or config['dim']
    fused = optimizer.optimize_model(str(work/'whole.onnx'), 'bert', num_heads=heads, hidden_size=hidden_size)
    fused.save_model_to_file(str(work/'fused.onnx'))
    dynamic(work/'fused.onnx', work/'fused_int8.onnx')

def tensors(batch):
    import torch
    return {k: torch.from_numpy(v) for k,v in batch.items()}

def torch_run(model):
    import torch
    from transformers import AutoModelForSequenceClassification
    net = AutoModelForSequenceClassification.from_pretrained(model, trust_remote_code=False).eval()
    def run(batch):
        with torch.inference_mode(): return net(**tensors(batch)).logits.numpy()
    return run

def pipeline_ask(model, record, batch_size, threads):
    "`transformers.pipeline` behind the same cleaning"
    import torch
    from transformers import pipeline
    pipe = pipeline('text-classification', str(model), device='cpu', top_k=None, truncation=True,
        max_length=record.max_length, batch_size=batch_size, trust_remote_code=False)
    def in_our_order(row):
        scores = {c['label']: c['score'] for c in row}
        return [scores[n] for n in record.labels]
    def run(texts):
        torch.set_num_threads(threads)
        rows = pipe([clean_text(t, record.policy) for t in texts])
        return np.array([in_our_order(row) for row in rows])
    return run

def openvino_run(path, work, samples, int8):
    """OpenVINO with shapes rounded up to buckets, since it compiles anew for each shape

    int8 by NNCF's post-training quantization.
    """
    import openvino as ov
    core = ov.Core()
    net = ov.convert_model(str(path))
    if int8:
        import nncf
        net = nncf.quantize(net, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples))
    settings = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': count_cpus()}
    compiled = core.compile_model(net, 'CPU', settings)
    def run(batch):
        n,length = batch['input_ids'].shape
        cols = -(-length//16)*16
        rows = max(n, 256//cols)
        padded = {k: np.pad(v, ((0, rows-n), (0, cols-length))) for k,v in batch.items()}
        return compiled(padded)[0][:n]
    return run

def quantize_exported(graph, samples):
    "int8 by PyTorch 2 Export Quantization for x86, with ranges from samples"
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    graph = prepare_pt2e(graph, quantizer)
    for s in samples: graph(**tensors(s))
    return convert_pt2e(graph)

def compiled_run(model, samples, int8=False, bf16=False):
    "PyTorch's compiler with batch and length free"
    import torch
    from transformers import AutoModelForSequenceClassification
    from torch._inductor import config
    config.freezing = True # weights are packed once
    net = AutoModelForSequenceClassification.from_pretrained(model, trust_remote_code=False).eval()
    dims = {0: torch.export.Dim('batch', min=1, max=4096), 1: torch.export.Dim('length', min=2, max=512)}
    example = tensors(pad_batch([[1,2,3]]*2))
    with torch.no_grad():
        graph = torch.export.export(net, (), example, dynamic_shapes={k: dims for k in samples[0]}).module()
        if int8: graph = quantize_exported(graph, samples)
    fast = torch.compile(graph, dynamic=True)
    def run(batch):
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            return fast(**tensors(batch)).logits.float().numpy()
    return run

def is_wanted(name, only, skip):
    "Whether a variant is to be tried: the default and float always are"
    if name in ('the default','float'): return True
    return any(part in name for part in only) and not any(part in name for part in skip)

def own_variants(work, encode_all, cores):
    "Variants of this package's own engine, by name"
    small = runner(work/'float_int8.onnx')
    side = ThreadPoolExecutor(cores).map
    def variant(run=small, pack=pack_batches, each=side):
        return partial(ask, run=run, encode_all=encode_all, pack=pack, each=each)
    def of_file(name, **kw): return variant(runner(work/f'{name}.onnx', **kw))
    ways = {'the default': variant(),
        'float': of_file('float'),
        'last layer for all tokens': of_file('whole_int8'),
        'fused sum and layer norm': of_file('float_int8', without=()),
        'bias added apart': of_file('apart_int8')}
    if (work/'attention_int8.onnx').exists(): ways['one operator for attention'] = of_file('attention_int8')
    ways |= {'ranges from each batch': of_file('dynamic_int8'),
        'ranges from each batch, int8 per tensor': of_file('tensor_int8'),
        'ranges from each batch, fused attention (transformer optimizer)': of_file('fused_int8', without=()),
        'one batch on all cores': variant(runner(work/'float_int8.onnx', threads=cores), each=map),
        'one core': variant(each=map),
        'batches of 32 as they come': variant(pack=in_order),
        'one session per core': variant(session_per_core(work/'float_int8.onnx', cores)),
        'tokenizing beside computing, 64 texts at a time': partial(ask_ahead, run=small, encode_all=encode_all),
        'a batch has no price': variant(pack=partial(pack_batches, overhead=0)),
        'no padding at all': variant(pack=one_length)}
    for n in (128, 512, 1024, 4096): ways[f'{n:,} tokens a batch'] = variant(pack=partial(pack_batches, max_tokens=n))
    return ways

COMPILED = {
    'float': {},
    'bfloat16': dict(bf16=True),
    'int8': dict(int8=True),
    'int8, the rest bfloat16': dict(int8=True, bf16=True)}

def torch_variants(model, samples, encode_all):
    "Variants by PyTorch and, where it is installed, torchao"
    def variant(run, pack=pack_batches): return partial(ask, run=run, encode_all=encode_all, pack=pack)
    ways = {'torch, batches as the default, all cores': variant(torch_run(model))}
    if importlib.util.find_spec('torchao'):
        pack = partial(pack_batches, max_tokens=512)
        for n,kind in COMPILED.items():
            ways[f'torch, compiled, {n}'] = variant(compiled_run(model, samples, **kind), pack)
    return ways

def pipeline_variants(model, record, cores):
    ways = {}
    for b in (1, 8, 32):
        for t in {1, cores}:
            name = f'pipeline, batch {b}, {t} thread{"s" if t>1 else ""}'
            ways[name] = pipeline_ask(model, record, b, t)
    return ways

def openvino_variants(work, samples, encode_all):
    def variant(int8):
        run = openvino_run(work/'float.onnx', work, samples, int8)
        return partial(ask, run=run, encode_all=encode_all)
    ways = {}
    if importlib.util.find_spec('openvino'):
        ways['OpenVINO, float'] = variant(int8=False)
        if importlib.util.find_spec('nncf'): ways['OpenVINO, NNCF int8'] = variant(int8=True)
    return ways

def time_ways(ways, texts, rounds):
    "Seconds of each variant, taking turns, and the labels that it gives"
    seconds = {n: [] for n in ways}
    labels = {}
    # not counted; twice, because PyTorch's compiler compiles once more when others have
    for n,w in [*ways.items()]*2: labels[n] = w(texts).argmax(1)
    for _ in range(rounds):
        for n,w in ways.items():
            start = time.perf_counter()
            w(texts)
            seconds[n].append(time.perf_counter()-start)
    return seconds, labels

def ratios(base, seconds): return spread([b/s for b,s in zip(base, seconds)], 2)

def table_rows(seconds, labels, pipelines, n_texts):
    "What the table shows of each variant"
    best = min((seconds[n] for n in pipelines if n in seconds), key=statistics.median, default=None)
    rows = []
    for n,ss in seconds.items():
        row = {'variant': n, 'texts/s': spread([n_texts/s for s in ss], 1),
            'times the default': ratios(seconds['the default'], ss)}
        if best: row['times the best pipeline'] = ratios(best, ss)
        rows.append(row | {'same labels': float((labels[n]==labels['float']).mean())})
    return rows

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='models/quickstart')
    p.add_argument('--data', default='data/quickstart')
    p.add_argument('--limit', type=int, default=1000, help='texts of the validation split')
    p.add_argument('--shape', choices=['distilbert'],
        help='a random network of this size instead of the model, with its tokenizer')
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--part', default='tweets')
    p.add_argument('--only', nargs='*', default=[''], help='parts of the names of variants to try')
    p.add_argument('--skip', nargs='*', default=[], help='parts of the names of variants to leave out')
    args = p.parse_args()
    record = ModelRecord.load(args.model)
    cores = count_cpus()
    splits = load_prepared(args.data)
    texts = splits['validation'].shuffle(seed=0)['text'][:args.limit]
    calibration_texts = splits['train'].shuffle(seed=0)['text'][:250]
    tokenizer = Tokenizer.from_file(f'{args.model}/tokenizer.json')
    encode_all = partial(token_ids, record, tokenizer)
    with tempfile.TemporaryDirectory() as d:
        work = Path(d)
        if args.shape: (work/'random').mkdir()
        model = random_distilbert(args.model, work/'random', record) if args.shape else args.model
        graphs(model, work, encode_all(calibration_texts))
        samples = [pad_batch([i]) for i in encode_all(texts[:100])]
        ways = own_variants(work, encode_all, cores) | torch_variants(model, samples, encode_all)
        pipelines = pipeline_variants(model, record, cores)
        ways |= pipelines
        ways |= openvino_variants(work, samples, encode_all)
        ways = {n: w for n,w in ways.items() if is_wanted(n, args.only, args.skip)}
        seconds,labels = time_ways(ways, texts, args.rounds)
        start = time.perf_counter()
        ids = encode_all(texts)
        share = (time.perf_counter()-start)/statistics.median(seconds['the default'])
    tokens = float(np.mean([len(i) for i in ids]))
    rows = table_rows(seconds, labels, pipelines, len(texts))
    say(f'{len(texts):,} texts of {tokens:.0f} tokens, {args.rounds} rounds, {cores} cores; '
        f'cleaning and tokenizing take {share:.1%} of the default\'s time')
    print_table(rows)
    results = dict(texts=len(texts), tokens=tokens, tokenizing_share=share, rows=rows)
    save('engines', args, 'onnxruntime tokenizers onnx torch transformers openvino nncf torchao', results, args.part)

if __name__=='__main__': main()
