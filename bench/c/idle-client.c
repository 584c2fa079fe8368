/* idle-client: opens a device, says so, and does nothing until its input ends, under `vfio-shim run --device SPEC`. */
#define _GNU_SOURCE
#include "v1-client.h"

int main(void) {
    struct v1_device device = open_v1_device();
    char byte;

    printf("{\"bench\":\"idle-client\",\"fd\":%d}\n", device.fd);
    fflush(stdout);
    while (read(0, &byte, 1) > 0) continue;
    return 0;
}
