// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* v2log as a mediated PCI device: regions, registers, opening and closing. */
#include <linux/device.h>
#include <linux/device/class.h>
#include <linux/mdev.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include "v2log.h"

#define REGION_SHIFT 40
#define REGION_INDEX(pos) ((u64)(pos) >> REGION_SHIFT)
#define REGION_OFFSET(index) ((u64)(index) << REGION_SHIFT)
#define REGISTERS_SIZE PAGE_SIZE

static int command(struct v2log *d, u64 number)
{
	u64 iova = d->registers[REG_IOVA], pages = d->registers[REG_PAGES], value = d->registers[REG_VALUE];

	switch (number) {
	case COMMAND_WRITE:
		return v2log_write_pages(d, iova, pages, value);
	case COMMAND_PIN:
		return v2log_pin(d, iova, pages);
	case COMMAND_WRITER:
		return v2log_start_writer(d, iova, pages, value);
	default:
		return -EINVAL;
	}
}

static void write_register(struct v2log *d, u64 number, u64 value)
{
	switch (number) {
	case REG_COMMAND:
		d->registers[REG_RESULT] = command(d, value);
		break;
	case REG_IOVA:
	case REG_PAGES:
	case REG_VALUE:
	case REG_FAULTS:
		d->registers[number] = value;
	}
}

static u64 read_register(struct v2log *d, u64 number)
{
	switch (number) {
	case REG_COUNTER:
		return d->writer.counter;
	case REG_PINNED:
		return bitmap_weight(d->pinned, IOVA_PAGES);
	case REG_LOGGED:
		return bitmap_weight(d->logged, IOVA_PAGES);
	default:
		return number < REGISTERS ? d->registers[number] : 0;
	}
}

/* Whole registers, of which one access may take several. */
static ssize_t access_registers(struct v2log *d, char __user *buf, size_t count, u64 at, bool write)
{
	size_t done;
	__le64 value;

	if (at % sizeof(value) || count % sizeof(value) || at >= REGISTERS_SIZE || count > REGISTERS_SIZE - at)
		return -EINVAL;
	for (done = 0; done < count; done += sizeof(value)) {
		u64 number = (at + done) / sizeof(value);

		if (write) {
			if (copy_from_user(&value, buf + done, sizeof(value)))
				return -EFAULT;
			write_register(d, number, le64_to_cpu(value));
		} else {
			value = cpu_to_le64(read_register(d, number));
			if (copy_to_user(buf + done, &value, sizeof(value)))
				return -EFAULT;
		}
	}
	return count;
}

static ssize_t access_bytes(u8 *memory, size_t size, char __user *buf, size_t count, u64 at, bool write)
{
	if (at > size || count > size - at)
		return -EINVAL;
	return (write ? copy_from_user(memory + at, buf, count) : copy_to_user(buf, memory + at, count)) ? -EFAULT : count;
}

static ssize_t v2log_access(struct v2log *d, char __user *buf, size_t count, loff_t *ppos, bool write)
{
	u64 at = *ppos & (REGION_OFFSET(1) - 1);
	ssize_t done;

	mutex_lock(&d->lock);
	switch (REGION_INDEX(*ppos)) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		done = access_bytes(d->memory, MEMORY_SIZE, buf, count, at, write);
		break;
	case VFIO_PCI_BAR2_REGION_INDEX:
		done = access_registers(d, buf, count, at, write);
		break;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		done = access_bytes(d->config, sizeof(d->config), buf, count, at, write);
		break;
	default:
		done = -EINVAL;
	}
	mutex_unlock(&d->lock);
	if (done > 0)
		*ppos += done;
	return done;
}

static ssize_t v2log_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	return v2log_access(v2log_of(vdev), buf, count, ppos, false);
}

static ssize_t v2log_write(struct vfio_device *vdev, const char __user *buf, size_t count, loff_t *ppos)
{
	return v2log_access(v2log_of(vdev), (char __user *)buf, count, ppos, true);
}

/* What a reset ends: the migration, DMA, and what that needs. The log goes on. */
static void reset(struct v2log *d)
{
	v2log_end_session(d);
	d->state = VFIO_DEVICE_STATE_RUNNING;
	memset(&d->writer, 0, sizeof(d->writer));
	v2log_unpin(d, 0, (u64)IOVA_PAGES << PAGE_SHIFT);
}

static u64 region_size(u32 index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return MEMORY_SIZE;
	case VFIO_PCI_BAR2_REGION_INDEX:
		return REGISTERS_SIZE;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return sizeof_field(struct v2log, config);
	default:
		return 0;
	}
}

static long v2log_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long argument)
{
	struct v2log *d = v2log_of(vdev);
	void __user *arg = (void __user *)argument;
	struct vfio_device_info device;
	struct vfio_region_info region;
	struct vfio_irq_info irq;
	const size_t least = offsetofend(struct vfio_device_info, num_irqs);

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		if (copy_from_user(&device, arg, least))
			return -EFAULT;
		if (device.argsz < least)
			return -EINVAL;
		device.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		device.num_regions = VFIO_PCI_NUM_REGIONS;
		device.num_irqs = VFIO_PCI_NUM_IRQS;
		return copy_to_user(arg, &device, least) ? -EFAULT : 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		if (copy_from_user(&region, arg, sizeof(region)))
			return -EFAULT;
		if (region.argsz < sizeof(region) || region.index >= VFIO_PCI_NUM_REGIONS)
			return -EINVAL;
		region.offset = REGION_OFFSET(region.index);
		region.size = region_size(region.index);
		region.cap_offset = 0;
		region.flags = region.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
		return copy_to_user(arg, &region, sizeof(region)) ? -EFAULT : 0;
	case VFIO_DEVICE_GET_IRQ_INFO:
		if (copy_from_user(&irq, arg, sizeof(irq)))
			return -EFAULT;
		if (irq.argsz < sizeof(irq) || irq.index >= VFIO_PCI_NUM_IRQS)
			return -EINVAL;
		irq.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
		irq.count = 0; /* it never interrupts */
		return copy_to_user(arg, &irq, sizeof(irq)) ? -EFAULT : 0;
	case VFIO_DEVICE_SET_IRQS:
		return 0;
	case VFIO_DEVICE_RESET:
		mutex_lock(&d->lock);
		reset(d);
		mutex_unlock(&d->lock);
		return 0;
	default:
		return -ENOTTY;
	}
}

/* The memory of a user who closes the device is no longer to be had: all that has to do with it ends. */
static void v2log_close_device(struct vfio_device *vdev)
{
	struct v2log *d = v2log_of(vdev);

	mutex_lock(&d->lock);
	reset(d);
	d->logging = false;
	mutex_unlock(&d->lock);
	cancel_delayed_work_sync(&d->work);
}

static void v2log_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct v2log *d = v2log_of(vdev);

	mutex_lock(&d->lock);
	v2log_unpin(d, iova, length);
	mutex_unlock(&d->lock);
}

static int v2log_init_dev(struct vfio_device *vdev)
{
	struct v2log *d = v2log_of(vdev);
	unsigned long **maps[] = { &d->pinned, &d->covered, &d->logged };
	int n;

	mutex_init(&d->lock);
	INIT_DELAYED_WORK(&d->work, v2log_work);
	for (n = 0; n < ARRAY_SIZE(maps); n++)
		*maps[n] = bitmap_zalloc(IOVA_PAGES, GFP_KERNEL);
	if (!d->pinned || !d->covered || !d->logged) {
		for (n = 0; n < ARRAY_SIZE(maps); n++)
			bitmap_free(*maps[n]);
		return -ENOMEM;
	}
	*(__le16 *)(d->config + PCI_VENDOR_ID) = cpu_to_le16(0x1234);
	*(__le16 *)(d->config + PCI_DEVICE_ID) = cpu_to_le16(0x326c);
	*(__le32 *)(d->config + PCI_CLASS_REVISION) = cpu_to_le32(0xff000001);
	d->state = VFIO_DEVICE_STATE_RUNNING;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;
	vdev->mig_ops = &v2log_migration_ops;
	vdev->log_ops = &v2log_log_ops;
	return 0;
}

static void v2log_release_dev(struct vfio_device *vdev)
{
	struct v2log *d = v2log_of(vdev);

	bitmap_free(d->pinned);
	bitmap_free(d->covered);
	bitmap_free(d->logged);
}

static const struct vfio_device_ops v2log_ops = {
	.name = "vfio-v2log",
	.init = v2log_init_dev,
	.release = v2log_release_dev,
	.close_device = v2log_close_device,
	.read = v2log_read,
	.write = v2log_write,
	.ioctl = v2log_ioctl,
	.dma_unmap = v2log_dma_unmap,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};

static int v2log_probe(struct mdev_device *mdev)
{
	struct v2log *d = vfio_alloc_device(v2log, vdev, &mdev->dev, &v2log_ops);
	int ret;

	if (IS_ERR(d))
		return PTR_ERR(d);
	ret = vfio_register_emulated_iommu_dev(&d->vdev);
	if (ret) {
		vfio_put_device(&d->vdev);
		return ret;
	}
	dev_set_drvdata(&mdev->dev, d);
	return 0;
}

static void v2log_remove(struct mdev_device *mdev)
{
	struct v2log *d = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&d->vdev);
	vfio_put_device(&d->vdev);
}

static unsigned int v2log_get_available(struct mdev_type *type)
{
	return 16;
}

static struct mdev_driver v2log_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.driver = {
		.name = "v2log",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
	},
	.probe = v2log_probe,
	.remove = v2log_remove,
	.get_available = v2log_get_available,
};

static struct mdev_type v2log_type = { .sysfs_name = "1", .pretty_name = "DMA that is logged, migration v2" };
static struct mdev_type *v2log_types[] = { &v2log_type };
static struct class *v2log_class;
static struct device *v2log_device;
static struct mdev_parent v2log_parent;

static int __init v2log_init(void)
{
	int ret;

	v2log_class = class_create("v2log");
	if (IS_ERR(v2log_class))
		return PTR_ERR(v2log_class);
	v2log_device = device_create(v2log_class, NULL, MKDEV(0, 0), NULL, "v2log");
	if (IS_ERR(v2log_device)) {
		ret = PTR_ERR(v2log_device);
		goto no_device;
	}
	ret = mdev_register_driver(&v2log_driver);
	if (ret)
		goto no_driver;
	ret = mdev_register_parent(&v2log_parent, v2log_device, &v2log_driver, v2log_types, ARRAY_SIZE(v2log_types));
	if (!ret)
		return 0;
	mdev_unregister_driver(&v2log_driver);
no_driver:
	device_unregister(v2log_device);
no_device:
	class_destroy(v2log_class);
	return ret;
}

static void __exit v2log_exit(void)
{
	mdev_unregister_parent(&v2log_parent);
	mdev_unregister_driver(&v2log_driver);
	device_unregister(v2log_device);
	class_destroy(v2log_class);
}

module_init(v2log_init);
module_exit(v2log_exit);
MODULE_DESCRIPTION("A VFIO device that logs its DMA and speaks migration protocol v2, for tests");
MODULE_LICENSE("GPL");
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(IOMMUFD);
#else
MODULE_IMPORT_NS("IOMMUFD");
#endif
