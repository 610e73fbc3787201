# Fusion plans edited by hand: whatever a legal plan fuses, the results keep their bits; an illegal
# one is refused with its place, the op and the reason.
expect 0 build "$golden/tiny-llama" --emit plan -q -o plan.txt
head -c 1500 "$text" >short.txt

# edit FROM TO: plan.txt with a sed substitution, which must change it, as edited.txt.
edit() {
    case="editing the plan: $1"
    sed -E "s/$1/$2/" plan.txt >edited.txt
    differ plan.txt edited.txt
}
# refused PATTERN…: the build fails and says all of these.
refused() {
    expect 1 build "$golden/tiny-llama" --fusion edited.txt -q -o edited.so
    for pattern in "$@"; do says "$pattern"; done
    case="refused plans: the first thing said"
    if head -1 err | grep -q '^error: '; then pass; else fail "it is no error"; fi
}
# fine: the build succeeds, and the artifact gives the bits of the strategy's.
fine() {
    expect 0 build "$golden/tiny-llama" --target "$targets" --fusion edited.txt -q -o edited.so
    expect 0 eval edited.so --text short.txt --reference llama.so --json
    holds 'd["max_kl"] == 0 and d["top1_agreement"] == 1'
    expect 0 inspect edited.so --plan
}

layer=layers.0
edit "^(kernel $layer.mlp.gate_proj.*act) $layer.mlp.mul" '\1' # silu of one half, the other whole
refused "$layer.mlp.gate_proj+up_proj: no schedule covers matmul" "takes it whole, another a half"
edit "^(kernel $layer.mlp.gate_proj\+up_proj matmul = $layer.mlp.gate_proj\+up_proj).*" '\1'
fine
prints "matmul = $layer.mlp.gate_proj+up_proj$"
edit ' (layers.1.self_attn.residual)' "\nkernel \1 rows = \1"
fine
edit "^(kernel $layer.self_attn.rope_q rows =.*) $layer.self_attn.rope_k" '\1'
fine
edit "^kernel $layer.self_attn.rope_q .*" '' # unmentioned ops are kernels of their own
fine
edit '^graph.*' '# any graph'
fine
# What computes a matmul's input may be part of its kernel.
norm=layers.1.input_layernorm qkv=layers.1.self_attn.q_proj\\+k_proj\\+v_proj
sed -E "/^kernel $norm rows/d; s/^(kernel $qkv matmul = )/\\1$norm /" plan.txt >edited.txt
fine
prints "matmul = $norm layers.1.self_attn.q_proj+k_proj+v_proj$"
sed -E "s/^(kernel $layer.mlp.gate_proj.*) $layer.mlp.act $layer.mlp.mul/\\1/
        s/^(kernel $layer.mlp.down_proj.*)/\\1 $layer.mlp.act $layer.mlp.mul/" plan.txt >edited.txt
fine
prints "down_proj $layer.mlp.residual $layer.mlp.act $layer.mlp.mul$"
expect 0 build "$golden/tiny-llama" --target "$targets" --fusion prologues -q -o edited.so
expect 0 eval edited.so --text short.txt --reference llama.so --json
holds 'd["max_kl"] == 0 and d["top1_agreement"] == 1'

edit 'modelcc-plan 1' 'modelcc-plan 2'
refused 'edited.txt:1: expected "modelcc-plan 1", found "modelcc-plan 2"'
edit '^graph .' 'graph x'
refused 'edited.txt: the plan is for graph x'
edit '^strategy' 'startegy'
refused 'edited.txt:3: unknown line "startegy"'
edit "^kernel lm_head matmul =.*" 'kernel lm_head matmul ='
refused 'edited.txt:[0-9]*: expected "kernel NAME ANCHOR = OP'
edit "= $layer.mlp.down_proj" "= $layer.mlp.downproj"
refused "edited.txt:[0-9]*: $layer.mlp.downproj: the graph has no op of this name"
edit '^kernel lm_head matmul' 'kernel lm_head gemm'
refused 'edited.txt:[0-9]*: gemm: no such anchor'
edit '^kernel lm_head matmul' 'kernel lm_head rows'
refused "edited.txt:[0-9]*: lm_head: the kernel's anchor is matmul, not rows"
edit '^kernel output_rows rows' 'kernel output_rows attention'
refused "output_rows: the kernel's anchor is rows, not attention"
edit '^kernel lm_head' 'kernel output_rows'
refused 'edited.txt:[0-9]*: output_rows: another kernel has this name'
edit '(= lm_head)$' '\1 norm'
refused 'norm: it is already part of another kernel'
edit '(rows = embed_tokens.*)' '\1 layers.0.self_attn.residual'
refused "$layer.self_attn.residual: it is already part of another kernel"
edit ' rope_table.angle ' ' '
refused 'circle: rope_table.cast needs rope_table.angle, which needs rope_table.cast'
edit "^(merge $layer.mlp.*) = .*" "\1 = $layer.mlp.gate_proj layers.1.mlp.up_proj"
refused 'layers.1.mlp.up_proj: it multiplies another input than the first'
edit "^(merge $layer.mlp.*) = .*" "\1 = $layer.mlp.gate_proj $layer.mlp.gate_proj"
refused "$layer.mlp.gate_proj: it is listed twice"
edit "^(merge $layer.mlp.*) = .*" "\1 = $layer.mlp.gate_proj $layer.mlp.act"
refused "$layer.mlp.act: only matmuls with weights can be merged"

# Kernels that no schedule covers.
sed -E "s/^(kernel $layer.self_attn.o_proj .*)/\1 $layer.post_attention_layernorm/
        /^kernel $layer.post_attention_layernorm/d" plan.txt >edited.txt
refused "$layer.post_attention_layernorm: no schedule covers rms_norm in kernel $layer.self_attn.o_proj"
sed -E "s/^(kernel $layer.self_attn.attention .*)/\1 $layer.self_attn.o_proj $layer.self_attn.residual/
        /^kernel $layer.self_attn.o_proj/d" plan.txt >edited.txt
refused "$layer.self_attn.o_proj: no schedule covers matmul" "a kernel has one anchor"
sed -E "/^kernel (layers.1.mlp.residual|norm|output_rows) /d
        s/^(kernel lm_head .*)/\\1 norm layers.1.mlp.residual/" plan.txt >edited.txt
refused "edited.txt:[0-9]*: layers.1.mlp.residual: it is already part of another kernel"
sed -E "/^kernel embed_tokens /d
        s/^(kernel $qkv matmul.*)/\\1 $norm/; /^kernel $norm rows/d
        s/^(kernel layers.0.self_attn.q_proj\\+k_proj.*)/\\1 layers.0.input_layernorm embed_tokens/" \
    plan.txt >edited.txt
refused 'edited.txt:[0-9]*: embed_tokens: other kernels need it, and what is in front of a matmul stays'
sed -E "/^kernel $layer.(self_attn.o_proj|post_attention_layernorm) /d
        s/^(kernel $layer.mlp.gate_proj.*)/\\1 $layer.post_attention_layernorm $layer.self_attn.residual $layer.self_attn.o_proj/" \
    plan.txt >edited.txt
refused 'edited.txt:[0-9]*: layers.0.self_attn.residual: other kernels need it'
: >edited.txt
refused 'edited.txt: empty; expected "modelcc-plan 1"'
expect 2 build "$golden/tiny-llama" --fusion missing.txt -q -o edited.so
says "neither a strategy"

# The graph before fusion goes through the same passes in modelcc opt; a fused one does not again.
expect 0 build "$golden/tiny-llama" --emit graph -q -o graph.ir
expect 0 build "$golden/tiny-llama" --emit ir -q -o fused.ir
expect 0 opt graph.ir --pipeline --fusion plan.txt -o replayed.ir
sed 's/^%[0-9].*weight {/weight {/; s/%[0-9]*/%/g' replayed.ir >a
sed 's/^%[0-9].*weight {/weight {/; s/%[0-9]*/%/g' fused.ir >b
case="the pipeline in modelcc opt"
same a b
expect 1 opt fused.ir --passes=fuse
silent
says "fused already"
