"""Triton kernels over rows of logits; :mod:`m2rl_core.ops.triton_rows` launches them and says what they move.

One program takes one row and walks over it in tiles [LANES, VECTOR]. A thread loads VECTOR neighbours (16 bytes) and
owns whole lanes; the online sums (peak, mass, ...) are kept per lane. The loop therefore holds no barrier and no
shuffle, and one exponential per logit with one more per lane: loads stay in flight. Lanes are combined once, after the
loop. The order of every sum is fixed by the vocabulary and the dtype, never by the number of rows.

Peaks and gaps are taken of the raw logits and scaled afterwards: the subtraction is exact near the peak, and no target
lies above it. ``base`` is scale · log2(e): exponentials are powers of two, gaps are in bits. V is a compile-time
constant because a masked load is a vector load only where the compiler sees that 16 divides V.

Arguments bear no types: Triton's compiler evaluates annotations itself and knows none but its own.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1e30)
"""Stands beyond a row's end. Finite, so that there is no 0 · inf; its exponential is 0 beside any real logit."""


@triton.jit
def _columns(start, LANES: tl.constexpr, VECTOR: tl.constexpr):
    return start + tl.arange(0, LANES)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]


@triton.jit
def _row(logits, stride):
    return logits + tl.program_id(0).to(tl.int64) * stride


@triton.jit
def _load(row, columns, V: tl.constexpr):
    return tl.load(row + columns, mask=columns < V, other=LOWEST).to(tl.float32)


@triton.jit
def _of_row(values):
    """This row's entry of a statistic [C]."""
    return tl.load(values + tl.program_id(0))


@triton.jit
def _put(out, index: tl.constexpr, value):
    """Into this row's column of out [k, C]."""
    tl.store(out + index * tl.num_programs(0).to(tl.int64) + tl.program_id(0), value)


@triton.jit
def _own(ids, offset, V: tl.constexpr):
    """Column of the row's own token, −1 where the slice does not hold it."""
    column = _of_row(ids) - offset
    return tl.where((column >= 0) & (column < V), column, -1).to(tl.int32)


@triton.jit
def _target(row, own):
    """Logit of the row's own token, −inf where the slice does not hold it."""
    return tl.load(row + own, mask=own >= 0, other=float("-inf")).to(tl.float32)


@triton.jit
def _rise(peak, x, base):
    """A lane's new peak; the old one's gap to it, and each logit's gap with its exponential."""
    top = tl.maximum(peak, tl.max(x, 1))
    gap = (x - top[:, None]) * base
    return top, (peak - top) * base, gap, tl.exp2(gap)


@triton.jit
def _settle(peak, base):
    """The row's peak and each lane's gap to it."""
    top = tl.max(peak, 0)
    return top, (peak - top) * base


@triton.jit
def _moved(total, mass, fall, shift):
    """A lane's Σ e · (gap + ...) when its peak has risen by −fall bits and the gaps have changed by ``shift``."""
    return tl.exp2(fall) * (total + mass * shift)


@triton.jit
def _entropy_gradient(logp, p, hit, lead, spread, entropy):
    """g · (1_y − p) − h · p · (log p + entropy)."""
    return tl.where(hit, lead, 0.0) - p * (lead + spread * (logp + entropy))


@triton.jit
def _cross(cross, mass, power, fall, gap, other_fall, other_gap):
    """A lane's Σ e · (gap − the other side's gap), one tile on."""
    return _moved(cross, mass, fall, fall - other_fall) + tl.sum(power * (gap - other_gap), 1)


@triton.jit
def _mixture(logp, logq, beta):
    """p, q and log(p / m) for m = beta · q + (1 − beta) · p, by two exponentials."""
    ahead = logq - logp
    near = tl.exp2(-tl.abs(ahead) * LOG2E)
    larger = tl.exp2(tl.maximum(logp, logq) * LOG2E)
    weight = tl.where(ahead > 0, beta, 1 - beta)
    p, q = larger * tl.where(ahead > 0, near, 1.0), larger * tl.where(ahead > 0, 1.0, near)
    return p, q, -tl.maximum(ahead, 0.0) - tl.log2(weight + (1 - weight) * near) * LN2


@triton.jit(do_not_specialize=["offset"])
def summarise(
    logits, ids, out, stride, offset, scale,
    V: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Peak, mass, moment and target of each row, into out [4, C]."""
    row = _row(logits, stride)
    base = scale * LOG2E
    peak = tl.full([LANES], LOWEST, tl.float32)
    mass = tl.zeros([LANES], tl.float32)
    moment = tl.zeros([LANES], tl.float32)
    for start in range(0, V, LANES * VECTOR):
        peak, fall, gap, power = _rise(peak, _load(row, _columns(start, LANES, VECTOR), V), base)
        moment = _moved(moment, mass, fall, fall) + tl.sum(power * gap, 1)
        mass = mass * tl.exp2(fall) + tl.sum(power, 1)
    top, fall = _settle(peak, base)
    _put(out, 0, top * scale)
    _put(out, 1, tl.sum(mass * tl.exp2(fall), 0))
    _put(out, 2, tl.sum(_moved(moment, mass, fall, fall), 0) * LN2)
    _put(out, 3, _target(row, _own(ids, offset, V)) * scale)


@triton.jit(do_not_specialize=["offset"])
def gradient(
    logits, ids, lse, entropy, grad_logp, grad_entropy,
    stride, offset, scale, V: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Each row of logits becomes the gradient of g · logp + h · entropy with respect to it."""
    row = _row(logits, stride)
    own = _own(ids, offset, V)
    lse, entropy = _of_row(lse), _of_row(entropy)
    lead, spread = _of_row(grad_logp) * scale, _of_row(grad_entropy) * scale
    for start in range(0, V, LANES * VECTOR):
        columns = _columns(start, LANES, VECTOR)
        logp = tl.fma(_load(row, columns, V), scale, -lse)
        change = _entropy_gradient(logp, tl.exp2(logp * LOG2E), columns == own, lead, spread, entropy)
        tl.store(row + columns, change, mask=columns < V)


@triton.jit
def _walk(
    row, other, base, V: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr, KIND: tl.constexpr
):  # fmt: skip
    """Both sides' peaks and masses, the student's moment and, for a KL, the sum of weighted differences [bits]."""
    peak_s = tl.full([LANES], LOWEST, tl.float32)
    peak_t = tl.full([LANES], LOWEST, tl.float32)
    mass_s = tl.zeros([LANES], tl.float32)
    mass_t = tl.zeros([LANES], tl.float32)
    moment = tl.zeros([LANES], tl.float32)
    cross = tl.zeros([LANES], tl.float32)
    for start in range(0, V, LANES * VECTOR):
        columns = _columns(start, LANES, VECTOR)
        peak_s, fall_s, gap_s, power_s = _rise(peak_s, _load(row, columns, V), base)
        peak_t, fall_t, gap_t, power_t = _rise(peak_t, _load(other, columns, V), base)
        if KIND == "reverse":
            cross = _cross(cross, mass_s, power_s, fall_s, gap_s, fall_t, gap_t)
        if KIND == "forward":
            cross = _cross(cross, mass_t, power_t, fall_t, gap_t, fall_s, gap_s)
        moment = _moved(moment, mass_s, fall_s, fall_s) + tl.sum(power_s * gap_s, 1)
        mass_s = mass_s * tl.exp2(fall_s) + tl.sum(power_s, 1)
        mass_t = mass_t * tl.exp2(fall_t) + tl.sum(power_t, 1)
    top_s, fall_s = _settle(peak_s, base)
    top_t, fall_t = _settle(peak_t, base)
    if KIND == "reverse":
        cross = _moved(cross, mass_s, fall_s, fall_s - fall_t)
    if KIND == "forward":
        cross = _moved(cross, mass_t, fall_t, fall_t - fall_s)
    moment = _moved(moment, mass_s, fall_s, fall_s)
    mass_s, mass_t = mass_s * tl.exp2(fall_s), mass_t * tl.exp2(fall_t)
    return top_s, tl.sum(mass_s, 0), tl.sum(moment, 0), top_t, tl.sum(mass_t, 0), tl.sum(cross, 0)


@triton.jit
def _mixture_means(
    row, other, lse_s, lse_t, scale, beta,
    V: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """KL(student ‖ mixture) and KL(teacher ‖ mixture) of the row."""
    of_s = tl.zeros([LANES], tl.float32)
    of_t = tl.zeros([LANES], tl.float32)
    for start in range(0, V, LANES * VECTOR):
        columns = _columns(start, LANES, VECTOR)
        logp = tl.fma(_load(row, columns, V), scale, -lse_s)
        logq = tl.fma(_load(other, columns, V), scale, -lse_t)
        p, q, ratio = _mixture(logp, logq, beta)
        of_s += tl.sum(p * ratio, 1)
        of_t += tl.sum(q * (ratio + (logq - logp)), 1)
    return tl.sum(of_s, 0), tl.sum(of_t, 0)


@triton.jit
def compare(
    student, teacher, ids, out, student_stride, teacher_stride, scale, beta,
    V: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """The student's log-normaliser, logp and entropy, the teacher's log-normaliser, the divergence: into out [5, C]."""
    row, other = _row(student, student_stride), _row(teacher, teacher_stride)
    top_s, mass_s, moment, top_t, mass_t, cross = _walk(row, other, scale * LOG2E, V, LANES, VECTOR, KIND)
    log_s, log_t = tl.log(mass_s), tl.log(mass_t)
    lse_s, lse_t = top_s * scale + log_s, top_t * scale + log_t
    if KIND == "reverse":
        value = cross * LN2 / mass_s + (log_t - log_s)
    elif KIND == "forward":
        value = cross * LN2 / mass_t + (log_s - log_t)
    else:
        of_s, of_t = _mixture_means(row, other, lse_s, lse_t, scale, beta, V, LANES, VECTOR)
        value = beta * of_t + (1 - beta) * of_s
    _put(out, 0, lse_s)
    _put(out, 1, (_target(row, _own(ids, 0, V)) - top_s) * scale - log_s)  # never above 0, fused or not
    _put(out, 2, log_s - moment * LN2 / mass_s)
    _put(out, 3, lse_t)
    _put(out, 4, value)


@triton.jit
def compare_gradient(
    student, teacher, ids, lse, entropy, teacher_lse, value, grad_logp,
    grad_entropy, grad_value, student_stride, teacher_stride, scale, beta,
    V: tl.constexpr, LANES: tl.constexpr, VECTOR: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Each row of the student's logits becomes the gradient of g · logp + h · entropy + v · divergence."""
    row, other = _row(student, student_stride), _row(teacher, teacher_stride)
    own = _own(ids, 0, V)
    lse_s, entropy, lse_t, value = _of_row(lse), _of_row(entropy), _of_row(teacher_lse), _of_row(value)
    lead, spread, pull = _of_row(grad_logp) * scale, _of_row(grad_entropy) * scale, _of_row(grad_value) * scale
    if KIND == "js":
        mean, _of_t = _mixture_means(row, other, lse_s, lse_t, scale, beta, V, LANES, VECTOR)
    for start in range(0, V, LANES * VECTOR):
        columns = _columns(start, LANES, VECTOR)
        logp = tl.fma(_load(row, columns, V), scale, -lse_s)
        logq = tl.fma(_load(other, columns, V), scale, -lse_t)
        p = tl.exp2(logp * LOG2E)
        change = _entropy_gradient(logp, p, columns == own, lead, spread, entropy)
        if KIND == "reverse":
            change += pull * p * (logp - logq - value)
        elif KIND == "forward":
            change += pull * (p - tl.exp2(logq * LOG2E))
        else:
            _p, _q, ratio = _mixture(logp, logq, beta)
            change += pull * (1 - beta) * p * (ratio - mean)
        tl.store(row + columns, change, mask=columns < V)
