// The words of the hyper slot, in the order of gpunn.ops.HYPER, and the terms of an update as bits.
#pragma once

namespace hyper {
enum Word {
    lr,
    l2,
    momentum,
    beta1,
    beta2,
    epsilon,
    beta1_power,
    beta2_power,
    l1,
    weight_decay,
    rho,
    clip_norm,
    clip_scale,
    first_step,
    l2_sum,
    epsilon_hat,
};
}

namespace term {
enum Bit { l1 = 1, l2 = 2, decay = 4, clip = 8 };
}
