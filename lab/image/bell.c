// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * bell: a driver for an emulated device of `vfio-shim run --device`, in the guest that has it.
 *
 * It rings the device's doorbell, a register behind the pending bits of MSI-X, by which the device raises one of its vectors, and waits
 * for the interrupt. With each ring it writes a word of BAR0, and compares one that it has written before. It does so from `run` on, in a
 * thread of its own, until the device is suspended, reset or removed, and goes on afterwards. What it has counted is in the attributes
 * of the device's directory in sysfs:
 *
 *   bell/run     1 while it rings
 *   bell/rung    how often it has rung
 *   bell/lost    how many interrupts did not come within ten seconds
 *   bell/extra   how many came that nobody had rung for
 *   bell/wrong   how many words of BAR0 were not what was written
 *   bell/verify  reading it compares all of BAR0; the number of words that differ
 */
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/freezer.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/vmalloc.h>

#define MEMORY_BAR 0
#define DOORBELL_BAR 2
#define DOORBELL 0xc00
#define VECTORS 4
#define PATIENCE (10 * HZ)

struct bell;

struct line {
	struct bell *bell;
	int vector;
};

struct bell {
	struct pci_dev *pdev;
	u32 __iomem *memory;
	void __iomem *registers;
	/* What BAR0 holds. */
	u32 *mirror;
	u32 words;
	int vectors;
	/* Held while it rings: who has it has the device for itself. */
	struct mutex lock;
	struct task_struct *thread;
	bool run;
	struct completion came[VECTORS];
	u32 rung, lost, wrong;
	atomic_t extra;
	/* Whether somebody has rung for it. */
	atomic_t waits[VECTORS];
	struct line lines[VECTORS];
};

static bool intx;
module_param(intx, bool, 0444);
MODULE_PARM_DESC(intx, "take INTx, not MSI-X");

static irqreturn_t bell_irq(int irq, void *data)
{
	struct line *line = data;
	struct bell *bell = line->bell;

	/* QEMU takes an access to the device for what ends an INTx (hw/vfio/pci.c: vfio_intx_eoi). */
	if (intx)
		readl(bell->registers + DOORBELL);
	if (atomic_cmpxchg(&bell->waits[line->vector], 1, 0) == 1)
		complete(&bell->came[line->vector]);
	else
		atomic_inc(&bell->extra);
	return IRQ_HANDLED;
}

static void bell_ring(struct bell *bell)
{
	u32 n = bell->rung;
	int vector = n % bell->vectors;
	/* A prime, so that all words have their turn. */
	u32 written = (n * 4099u) % bell->words;
	u32 compared = ((n / 2) * 4099u) % bell->words;

	bell->mirror[written] = n * 2654435761u;
	writel(bell->mirror[written], &bell->memory[written]);
	reinit_completion(&bell->came[vector]);
	atomic_set(&bell->waits[vector], 1);
	writel(1u << vector, bell->registers + DOORBELL);
	if (!wait_for_completion_timeout(&bell->came[vector], PATIENCE)) {
		atomic_set(&bell->waits[vector], 0);
		bell->lost++;
		pci_err(bell->pdev, "ring %u: no interrupt of vector %d\n", n, vector);
	}
	if (readl(&bell->memory[compared]) != bell->mirror[compared]) {
		bell->wrong++;
		pci_err(bell->pdev, "ring %u: word %u is wrong\n", n, compared);
	}
	bell->rung = n + 1;
}

static int bell_thread(void *data)
{
	struct bell *bell = data;

	set_freezable();
	while (!kthread_should_stop()) {
		mutex_lock(&bell->lock);
		if (bell->run)
			bell_ring(bell);
		mutex_unlock(&bell->lock);
		try_to_freeze();
		if (!bell->run)
			schedule_timeout_interruptible(HZ / 50);
		else
			schedule_timeout_interruptible(1);
	}
	return 0;
}

static u32 bell_verify(struct bell *bell)
{
	u32 differ = 0;
	u32 n;

	mutex_lock(&bell->lock);
	for (n = 0; n < bell->words; n++)
		if (readl(&bell->memory[n]) != bell->mirror[n])
			differ++;
	mutex_unlock(&bell->lock);
	return differ;
}

/* What was written before is not there any more. */
static void bell_learn(struct bell *bell)
{
	u32 n;

	for (n = 0; n < bell->words; n++)
		bell->mirror[n] = readl(&bell->memory[n]);
}

static ssize_t run_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct bell *bell = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%d\n", bell->run);
}

static ssize_t run_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
	struct bell *bell = dev_get_drvdata(dev);
	bool run;
	int ret = kstrtobool(buf, &run);

	if (ret)
		return ret;
	mutex_lock(&bell->lock);
	bell->run = run;
	mutex_unlock(&bell->lock);
	return count;
}
static DEVICE_ATTR_RW(run);

#define SHOW(name, value)                                                                          \
	static ssize_t name##_show(struct device *dev, struct device_attribute *attr, char *buf)   \
	{                                                                                          \
		struct bell *bell = dev_get_drvdata(dev);                                          \
                                                                                                   \
		return sysfs_emit(buf, "%u\n", (u32)(value));                                      \
	}                                                                                          \
	static DEVICE_ATTR_RO(name)

SHOW(rung, bell->rung);
SHOW(lost, bell->lost);
SHOW(wrong, bell->wrong);
SHOW(extra, atomic_read(&bell->extra));
SHOW(verify, bell_verify(bell));
SHOW(vectors, bell->vectors);

static struct attribute *bell_attrs[] = {
	&dev_attr_run.attr,   &dev_attr_rung.attr,  &dev_attr_lost.attr,    &dev_attr_wrong.attr,
	&dev_attr_extra.attr, &dev_attr_verify.attr, &dev_attr_vectors.attr, NULL,
};
static const struct attribute_group bell_group = { .name = "bell", .attrs = bell_attrs };
static const struct attribute_group *bell_groups[] = { &bell_group, NULL };

static int bell_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct bell *bell;
	int n, ret;

	bell = devm_kzalloc(&pdev->dev, sizeof(*bell), GFP_KERNEL);
	if (!bell)
		return -ENOMEM;
	bell->pdev = pdev;
	mutex_init(&bell->lock);
	for (n = 0; n < VECTORS; n++)
		init_completion(&bell->came[n]);
	ret = pci_enable_device_mem(pdev);
	if (ret)
		return ret;
	ret = pci_request_regions(pdev, "bell");
	if (ret)
		goto disable;
	ret = -ENOMEM;
	bell->memory = pci_iomap(pdev, MEMORY_BAR, 0);
	bell->registers = pci_iomap(pdev, DOORBELL_BAR, 0);
	bell->words = pci_resource_len(pdev, MEMORY_BAR) / sizeof(u32);
	bell->mirror = vmalloc(pci_resource_len(pdev, MEMORY_BAR));
	if (!bell->memory || !bell->registers || !bell->mirror)
		goto unmap;
	bell_learn(bell);
	pci_set_master(pdev);
	ret = pci_alloc_irq_vectors(pdev, 1, VECTORS, intx ? PCI_IRQ_INTX : PCI_IRQ_MSIX);
	if (ret < 0)
		goto unmap;
	bell->vectors = ret;
	for (n = 0; n < bell->vectors; n++) {
		bell->lines[n] = (struct line){ .bell = bell, .vector = n };
		ret = request_irq(pci_irq_vector(pdev, n), bell_irq, intx ? IRQF_SHARED : 0, "bell", &bell->lines[n]);
		if (ret)
			goto free;
	}
	pci_set_drvdata(pdev, bell);
	bell->thread = kthread_run(bell_thread, bell, "bell");
	if (IS_ERR(bell->thread)) {
		ret = PTR_ERR(bell->thread);
		goto free;
	}
	pci_info(pdev, "bell: %d vectors of %s, %u words\n", bell->vectors,
		 pdev->msix_enabled ? "MSI-X" : "INTx", bell->words);
	return 0;
free:
	while (n-- > 0)
		free_irq(pci_irq_vector(pdev, n), &bell->lines[n]);
	pci_free_irq_vectors(pdev);
unmap:
	if (bell->memory)
		pci_iounmap(pdev, bell->memory);
	if (bell->registers)
		pci_iounmap(pdev, bell->registers);
	vfree(bell->mirror);
	pci_release_regions(pdev);
disable:
	pci_disable_device(pdev);
	return ret;
}

static void bell_remove(struct pci_dev *pdev)
{
	struct bell *bell = pci_get_drvdata(pdev);
	int n;

	kthread_stop(bell->thread);
	for (n = 0; n < bell->vectors; n++)
		free_irq(pci_irq_vector(pdev, n), &bell->lines[n]);
	pci_free_irq_vectors(pdev);
	pci_clear_master(pdev);
	pci_iounmap(pdev, bell->memory);
	pci_iounmap(pdev, bell->registers);
	vfree(bell->mirror);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
}

/* Nobody rings while the device is reset. */
static void bell_reset_prepare(struct pci_dev *pdev)
{
	struct bell *bell = pci_get_drvdata(pdev);

	mutex_lock(&bell->lock);
}

static void bell_reset_done(struct pci_dev *pdev)
{
	struct bell *bell = pci_get_drvdata(pdev);

	bell_learn(bell);
	mutex_unlock(&bell->lock);
}

static const struct pci_error_handlers bell_errors = {
	.reset_prepare = bell_reset_prepare,
	.reset_done = bell_reset_done,
};

/* The devices that `qat` and `vendor-v1` emulate. */
static const struct pci_device_id bell_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_INTEL, 0x4941) },
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x10f1) },
	{ }
};

/* Its device is in a VM of the lab alone. */
static struct pci_driver bell_driver = {
	.name = "bell",
	.id_table = bell_ids,
	.probe = bell_probe,
	.remove = bell_remove,
	.err_handler = &bell_errors,
	.dev_groups = bell_groups,
};
module_pci_driver(bell_driver);

MODULE_DESCRIPTION("rings an emulated device's doorbell, and counts the interrupts that come");
MODULE_LICENSE("GPL");
