"""One check an exercise: `checks.NAME(answer)` says in words whether the answer is right, and if not, what is wrong.

A check never raises and never stops the notebook. It returns a `Verdict`, which is true only for a right answer.
"""

from helpers.checks.lesson_01 import channel_statistics, crop_batch, find_duplicate, stratified_split
from helpers.checks.lesson_02 import (
    autocorrelation,
    bottleneck_parameters,
    conv_parameters,
    multiply_adds,
    receptive_field,
)
from helpers.checks.lesson_03 import basic_block, batch_norm_train, first_loss, repaired_network, shortcut
from helpers.checks.lesson_04 import lr_sweep, one_cycle, range_test, smoothed_losses
from helpers.checks.lesson_05 import accuracy, label_smoothing_loss, training_step, weight_decay_groups
from helpers.checks.lesson_06 import (
    calibration_error,
    confusion_matrix,
    grad_cam,
    suspected_labels,
    temperature_scaling,
)
from helpers.checks.lesson_07 import log_uniform, paired_difference, seeds_needed, successive_halving
from helpers.checks.lesson_08 import auroc, class_weights, new_head, takes_pictures
from helpers.checks.lesson_09 import averaged_gradient, shard, step_operations, warmed_rate, whitening_filters
