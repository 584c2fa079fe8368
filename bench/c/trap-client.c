/* trap-client [CALLS]: nanoseconds per pread of device_state, under `vfio-shim run --device SPEC`. */
#define _GNU_SOURCE
#include "trap-loop.h"
#include "v1-client.h"

int main(int argc, char **argv) {
    uint64_t calls = number_argument(argc, argv, 1, 100000);
    struct v1_device device = open_v1_device();
    uint32_t state = 0;
    double ns = trap_loop(device.fd, (off_t)(device.region + V1_DEVICE_STATE), calls, &state);

    if (state != V1_RUNNING) fail("device_state is %u after open, not %u", state, V1_RUNNING);
    printf("{\"bench\":\"trap-client\",\"calls\":%llu,\"nsPerCall\":%.1f}\n", (unsigned long long)calls, ns);
    return 0;
}
