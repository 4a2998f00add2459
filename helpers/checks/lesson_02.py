"""Checks of the exercises of lesson 02."""

from helpers.checks.frame import Wrong, call, check, require


def _whole(value, what: str) -> int:
    """`value` as a whole number, or words about its type. One number of NumPy or PyTorch is a number, too."""
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    require(isinstance(value, int | float), f"{what} must be a number, got {type(value).__name__}.")
    require(value == value // 1, f"{what} must be a whole number, got {value}.")
    return int(value)


@check
def receptive_field(answer) -> str:
    """answer(layers): list of (kernel, stride), first layer first -> side of the receptive field in input pixels."""

    def side_of(layers) -> int:
        return _whole(call(answer, list(layers)), f"the receptive field of {layers}")

    for layers in ([(3, 1)], [(3, 1), (3, 1)], [(5, 1), (3, 1), (7, 1)]):
        side, true = side_of(layers), 1 + sum(kernel - 1 for kernel, _ in layers)
        said = f"for the layers (kernel, stride) {layers} you return {side}, expected {true}. "
        require(side != true - 1, said + "One too small: a pixel that has passed no layer sees 1 pixel, itself.")
        total = sum(kernel for kernel, _ in layers)
        require(side == true or side != total, said + "Windows overlap: a layer adds kernel - 1 pixels, not kernel.")
        require(side == true, said + "At stride 1 each layer adds kernel - 1 pixels.")
    for layers in (
        [(7, 2), (3, 2), (3, 1)],
        [(3, 1), (2, 2), (3, 1), (2, 3), (5, 1)],
        [(1, 2), (4, 3), (3, 2), (3, 1)],
    ):
        true, step, ignored, early, last, before, own = 1, 1, 1, 1, 1, 1, 1
        for kernel, stride in layers:
            true, ignored, last = true + (kernel - 1) * step, ignored + kernel - 1, last + (kernel - 1) * before
            step, before, own = step * stride, stride, own + (kernel - 1) * stride
            early += (kernel - 1) * step
        side = side_of(layers)
        said = f"for the layers (kernel, stride) {layers} you return {side}, expected {true}. "
        require(side != ignored, said + "The strides change nothing in your answer.")
        require(side != early, said + "A layer's stride spreads the layers after it, not its own window.")
        require(side == true or side != last, said + "Strides multiply: all layers before count, not only the last.")
        require(
            side == true or side != own,
            said + "You take each layer's own stride: it is the product of the strides before it that counts.",
        )
        require(side == true, said + "Each layer adds (kernel - 1) times the product of the strides before it.")
    return "each layer adds kernel - 1 steps, and a step is the product of the strides before it."


@check
def conv_parameters(answer) -> str:
    """answer(channels_in, channels_out, kernel, bias) -> number of parameters of that convolution."""
    for channels_in, channels_out, kernel in ((2, 5, 3), (7, 3, 1), (3, 64, 7), (16, 11, 5)):
        weights = channels_in * channels_out * kernel**2
        for bias in (False, True):
            count = _whole(call(answer, channels_in, channels_out, kernel, bias), "the number of parameters")
            true = weights + channels_out * bias
            said = f"{channels_in} to {channels_out} channels, kernel {kernel}, bias={bias}: {count}, expected {true}. "
            if count == true:
                continue
            require(bias or count != weights + channels_out, said + "bias=False means that there are no biases.")
            require(not bias or count != weights, said + "The biases are missing: one for each output channel.")
            require(
                not bias or count not in (weights + channels_in, weights + 1),
                said + "There is one bias for each output channel.",
            )
            extra = channels_out * bias
            require(
                count - extra not in (weights // kernel, 2 * weights // kernel, weights // kernel**2),
                said + "A filter has kernel rows and kernel columns: kernel squared.",
            )
            require(
                count != channels_out * kernel**2 + extra,
                said + "A filter is as deep as its input: it has weights for every input channel.",
            )
            require(count != channels_in * kernel**2 + extra, said + "Each output channel has a filter of its own.")
            raise Wrong(said + "Compare with [p.shape for p in nn.Conv2d(...).parameters()].")
    return "kernel² weights for each pair of channels, and one bias for each output channel."


@check
def multiply_adds(answer) -> str:
    """answer(channels_in, channels_out, kernel, height_out, width_out) -> multiply-adds of a convolution, no bias."""
    for channels_in, channels_out, kernel, height, width in ((2, 5, 3, 4, 6), (3, 64, 7, 112, 100), (16, 7, 1, 8, 5)):
        arguments = (channels_in, channels_out, kernel, height, width)
        count = _whole(call(answer, *arguments), "the number of multiply-adds")
        weights = channels_in * channels_out * kernel**2
        true = weights * height * width
        if count == true:
            continue
        said = f"for {arguments} you return {count:,}, expected {true:,}. "
        require(count != weights, said + "That is the number of weights: each is used at every output position.")
        require(count != 2 * true, said + "Twice too many: a multiplication and its addition count as one.")
        require(
            count not in (weights * height, weights * width, weights * height**2, weights * width**2),
            said + "The output has height_out times width_out positions, and need not be square.",
        )
        require(
            count != true + channels_out * height * width and count != true + channels_out,
            said + "This convolution has no bias.",
        )
        require(
            true not in (count * kernel, count * kernel**2),
            said + "A filter has kernel rows and kernel columns: kernel squared.",
        )
        require(count * channels_in != true, said + "Each output number is made from all input channels.")
        require(count * channels_out != true, said + "Every output channel is computed at every position.")
        raise Wrong(said + "Count what one output number needs, then how many output numbers there are.")
    return "kernel² times the input channels for each output number, times the number of output numbers."
