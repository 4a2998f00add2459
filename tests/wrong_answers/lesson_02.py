"""Wrong answers to the exercises of lesson 02, each with a fragment of the words its check must say."""


def _sum_of_kernels(layers):
    return sum(kernel for kernel, _ in layers)


def _starts_at_zero(layers):
    return _receptive_field(layers) - 1


def _ignores_stride(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def _own_stride_first(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        side += (kernel - 1) * step
    return side


def _own_stride_only(layers):
    return 1 + sum((kernel - 1) * stride for kernel, stride in layers)


def _last_stride_only(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step = stride
    return side


def _receptive_field(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step *= stride
    return side


def _backwards(layers):
    return _receptive_field(layers[::-1])


WRONG = {
    "receptive_field": {
        "adds kernel instead of kernel - 1": (_sum_of_kernels, "overlap"),
        "starts at 0": (_starts_at_zero, "One too small"),
        "ignores the strides": (_ignores_stride, "strides change nothing"),
        "applies a stride to its own layer": (_own_stride_first, "not its own window"),
        "uses the stride of the layer before only": (_last_stride_only, "Strides multiply"),
        "takes each layer's own stride": (_own_stride_only, "own stride"),
        "goes through the layers backwards": (_backwards, "product of the strides before it"),
        "returns text": (lambda layers: "5", "must be a number"),
    },
    "conv_parameters": {
        "forgets the bias": (lambda i, o, k, bias: i * o * k**2, "biases are missing"),
        "always counts a bias": (lambda i, o, k, bias: i * o * k**2 + o, "no biases"),
        "one bias for each input channel": (lambda i, o, k, bias: i * o * k**2 + i * bias, "each output channel"),
        "one bias in all": (lambda i, o, k, bias: i * o * k**2 + bias, "each output channel"),
        "kernel not squared": (lambda i, o, k, bias: i * o * k + o * bias, "kernel squared"),
        "no kernel at all": (lambda i, o, k, bias: i * o + o * bias, "kernel squared"),
        "kernel times two": (lambda i, o, k, bias: i * o * k * 2 + o * bias, "kernel squared"),
        "forgets the input channels": (lambda i, o, k, bias: o * k**2 + o * bias, "every input channel"),
        "forgets the output channels": (lambda i, o, k, bias: i * k**2 + o * bias, "a filter of its own"),
    },
    "multiply_adds": {
        "counts the weights": (lambda i, o, k, h, w: i * o * k**2, "number of weights"),
        "counts FLOPs": (lambda i, o, k, h, w: 2 * i * o * k**2 * h * w, "Twice too many"),
        "takes the output for square": (lambda i, o, k, h, w: i * o * k**2 * h * h, "need not be square"),
        "forgets the width": (lambda i, o, k, h, w: i * o * k**2 * h, "height_out times width_out"),
        "adds a bias": (lambda i, o, k, h, w: (i * k**2 + 1) * o * h * w, "no bias"),
        "kernel not squared": (lambda i, o, k, h, w: i * o * k * h * w, "kernel squared"),
        "no kernel at all": (lambda i, o, k, h, w: i * o * h * w, "kernel squared"),
        "forgets the input channels": (lambda i, o, k, h, w: o * k**2 * h * w, "all input channels"),
        "forgets the output channels": (lambda i, o, k, h, w: i * k**2 * h * w, "Every output channel"),
    },
}
