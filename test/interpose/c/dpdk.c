/*
 * dpdk: a program on DPDK's EAL, with a driver of its own for an emulated device with `dma=` and `irq=dma`, which EAL's bus finds in sysfs, opens,
 * maps and resets. It fills BAR0 with a pattern, has its memory written to by the device and is interrupted for that, gives the device up and takes
 * it again.
 *
 * What is before `--` is of this program: the bytes of BAR0, and the I/O virtual address that the device writes to. The rest is EAL's.
 * Prints what it has seen, a line each.
 *
 * The structs are those of bus_pci_driver.h and dev_driver.h, which no package has: the same in DPDK 22.11, 24.11 and 25.11.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <unistd.h>

#include <rte_bus_pci.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_interrupts.h>
#include <rte_pci.h>
#include <rte_vfio.h>

#include "common.h"

struct rte_driver {
    TAILQ_ENTRY(rte_driver) next;
    const char *name, *alias;
};

struct rte_device {
    TAILQ_ENTRY(rte_device) next;
    const char *name, *bus_info;
    const struct rte_driver *driver;
    const struct rte_bus *bus;
    int numa_node;
    struct rte_devargs *devargs;
};

struct rte_pci_device {
    TAILQ_ENTRY(rte_pci_device) next;
    struct rte_device device;
    struct rte_pci_addr addr;
    struct rte_pci_id id;
    struct rte_mem_resource mem_resource[6];
    struct rte_intr_handle *intr_handle;
    struct rte_pci_driver *driver;
    uint16_t max_vfs;
    int kdrv;
    char name[PCI_PRI_STR_SIZE + 1];
    char *bus_info;
    struct rte_intr_handle *vfio_req_intr_handle;
};

struct rte_pci_driver {
    TAILQ_ENTRY(rte_pci_driver) next;
    struct rte_driver driver;
    int (*probe)(struct rte_pci_driver *, struct rte_pci_device *);
    int (*remove)(struct rte_pci_device *);
    void *dma_map, *dma_unmap;
    const struct rte_pci_id *id_table;
    uint32_t drv_flags;
};

#define NEED_MAPPING 1 /* RTE_PCI_DRV_NEED_MAPPING */
#define SIZE (2ul << 20)

void rte_pci_register(struct rte_pci_driver *driver);

static char name[64];
static uint64_t bar0;
static int probed, removed;
static atomic_int interrupts;

static uint32_t config_read(const struct rte_pci_device *device, off_t at, size_t length) {
    uint32_t value = 0;

    if (rte_pci_read_config(device, &value, length, at) != (int)length) fail("config space at %ld", (long)at);
    return value;
}

/* The BAR is what was written to it, whoever has mapped it before. */
static void fill(const struct rte_mem_resource *bar) {
    uint32_t *words = bar->addr;

    for (uint32_t n = 0; n < bar0 / 4; n++) {
        uint32_t value = n * 2654435761u;

        if (words[n] != (probed == 1 ? 0 : value)) fail("BAR0 has 0x%x at word %u", words[n], n);
        words[n] = value;
    }
}

/* By EAL's thread. INTx is masked until it is acknowledged; MSI and MSI-X need no word. */
static void on_interrupt(void *device) {
    interrupts++;
    if (rte_intr_ack(((struct rte_pci_device *)device)->intr_handle)) fail("rte_intr_ack");
}

static int probe(struct rte_pci_driver *driver, struct rte_pci_device *device) {
    static const uint16_t wanted = 0x6; /* memory, bus master */
    static const int msix_bar = 2;      /* it cannot be mapped */

    probed++;
    snprintf(name, sizeof name, "%s", device->device.name);
    if (device->driver != driver) fail("another driver's device");
    if (config_read(device, 0, 4) != (device->id.vendor_id | (uint32_t)device->id.device_id << 16)) fail("another device");
    if ((config_read(device, 4, 2) & wanted) != wanted) fail("COMMAND is 0x%x", config_read(device, 4, 2));
    for (int n = 1; n < 6; n++)
        if (device->mem_resource[n].len != (n == msix_bar ? 4096 : 0)) fail("BAR%d has %lu bytes", n, device->mem_resource[n].len);
    if (device->mem_resource[msix_bar].addr != NULL) fail("the BAR of MSI-X is mapped");
    if (device->mem_resource[0].len != bar0) fail("BAR0 has %lu bytes", device->mem_resource[0].len);
    if (device->mem_resource[0].addr == NULL) fail("BAR0 is not mapped");
    fill(&device->mem_resource[0]);
    interrupts = 0;
    if (rte_intr_callback_register(device->intr_handle, on_interrupt, device)) fail("rte_intr_callback_register");
    if (rte_intr_enable(device->intr_handle)) fail("rte_intr_enable");
    printf("probed %s, interrupts of type %d\n", name, rte_intr_type_get(device->intr_handle));
    return 0;
}

static int remove_device(struct rte_pci_device *device) {
    removed++;
    if (rte_intr_disable(device->intr_handle)) fail("rte_intr_disable");
    if (rte_intr_callback_unregister_sync(device->intr_handle, on_interrupt, device) != 1) fail("another callback");
    return 0;
}

static const struct rte_pci_id any[] = {
    {RTE_CLASS_ANY_ID, RTE_PCI_ANY_ID, RTE_PCI_ANY_ID, RTE_PCI_ANY_ID, RTE_PCI_ANY_ID},
    {0, 0, 0, 0, 0},
};
static struct rte_pci_driver own = {
    .driver = {.name = "own"}, .probe = probe, .remove = remove_device, .id_table = any, .drv_flags = NEED_MAPPING};

__attribute__((constructor)) static void announce(void) {
    rte_pci_register(&own);
}

/* Waits for a record of the device's, and for interrupts: more than one, as one that is not acknowledged is the last. */
static void wait_for_dma(const volatile unsigned char *memory) {
    double until = now_ns() + 60e9;
    int written = 0;

    while (!written || interrupts < 3) {
        for (unsigned long at = 0; at < SIZE; at += 4096)
            if (!memcmp((const void *)(memory + at), "vfio-dma", 8)) written = 1;
        if (now_ns() > until) fail("the device %s", written ? "does not interrupt" : "writes nothing");
        usleep(1000);
    }
}

static void does_dma(uint64_t iova) {
    unsigned char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) die("mmap");
    if (rte_vfio_container_dma_map(RTE_VFIO_DEFAULT_CONTAINER_FD, (uintptr_t)memory, iova, SIZE))
        fail("rte_vfio_container_dma_map: %s", rte_strerror(rte_errno));
    wait_for_dma(memory);
    if (rte_vfio_container_dma_unmap(RTE_VFIO_DEFAULT_CONTAINER_FD, (uintptr_t)memory, iova, SIZE))
        fail("rte_vfio_container_dma_unmap: %s", rte_strerror(rte_errno));
    memset(memory, 0, SIZE);
    printf("written to by DMA, and interrupted\n");
    if (rte_eal_hotplug_remove("pci", name)) fail("rte_eal_hotplug_remove: %s", rte_strerror(rte_errno));
    if (removed != 1) fail("the driver was not asked to remove the device");
    for (unsigned long at = 0; at < SIZE; at++)
        if (memory[at] != 0) fail("written to at %lu when it was unmapped", at);
    munmap(memory, SIZE);
}

int main(int argc, char **argv) {
    if (argc < 4 || strcmp(argv[3], "--")) fail("usage: dpdk BYTES IOVA -- OPTIONS");
    bar0 = number_argument(argc, argv, 1, 0);
    if (rte_eal_init(argc - 3, argv + 3) < 0) fail("rte_eal_init: %s", rte_strerror(rte_errno));
    if (probed != 1) fail("%d devices were probed", probed);
    does_dma(number_argument(argc, argv, 2, 0));
    if (rte_eal_hotplug_add("pci", name, "")) fail("rte_eal_hotplug_add: %s", rte_strerror(rte_errno));
    if (probed != 2) fail("the device was not probed again");
    if (rte_eal_cleanup()) fail("rte_eal_cleanup");
    if (removed != 2) fail("the device was not removed again");
    printf("cleaned up\n");
    return 0;
}
