// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * v1mem: a mediated device whose driver speaks migration protocol v1 (linux/vfio.h, 5.8 to 5.17), as out-of-tree drivers did.
 *
 * It has a BAR of memory, and a migration region behind vfio-pci's own. Its stream is a record for pre-copy and one for
 * stop-and-copy, each a header and the whole BAR. It is strict where the protocol allows it: registers only at their native
 * width, a buffer consumed by a read of pending_bytes and by nothing else, RESUMING left towards RUNNING only.
 *
 * There are two types of it: the data section of v1mem-1 is read and written, that of v1mem-mapped is mapped and has no other
 * way, as with NVIDIA's vGPU host driver for the uapi of Linux 5.8 (nvidia-vgpu-vfio.c: nv_vgpu_vfio_access). A device counts how
 * often its data section was mapped and faulted in, in v1mem/maps and v1mem/faults of its directory in sysfs.
 */
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/device/class.h>
#include <linux/mdev.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#define REGION_SHIFT 40
#define REGION_INDEX(pos) ((u64)(pos) >> REGION_SHIFT)
#define REGION_OFFSET(index) ((u64)(index) << REGION_SHIFT)
#define MIGRATION_INDEX VFIO_PCI_NUM_REGIONS

#define BAR_SIZE 8192
#define SECTION_AT PAGE_SIZE
#define SECTION_SIZE 3072
#define CONFIG_SIZE 256
#define MAGIC 0x314d454du /* MEM1 */

#define STOPPED 0u
#define RUNNING 1u
#define STOP_COPY 2u
#define PRE_COPY 3u
#define RESUMING 4u

struct record {
	__le32 magic;
	__le32 last;
	__le32 length;
	__le32 reserved;
};

#define RECORD_SIZE (sizeof(struct record) + BAR_SIZE)

struct v1mem {
	struct vfio_device vdev;
	struct mutex lock;
	u8 config[CONFIG_SIZE];
	u8 bar[BAR_SIZE];
	/* One page, of which the type that is mapped uses all. */
	u8 *section;
	u32 section_size;
	bool mapped;
	atomic_t maps, faults;
	u32 device_state;
	/* Saving: the record being sent, how much of it was consumed, the buffer that is in the section, whether it was shown. */
	u8 out[RECORD_SIZE];
	u32 out_length, out_position, buffer;
	bool shown;
	/* Stop-and-copy: records that come behind it. */
	u32 later;
	/* Resuming: the record being received, and whether the last one has come. */
	u8 in[RECORD_SIZE];
	u32 in_length;
	bool complete;
};

static unsigned int delay_ms;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "milliseconds that a device takes to have a buffer, and to load one");

static atomic_t busy = ATOMIC_INIT(0);
static int most_busy;
module_param(most_busy, int, 0644);
MODULE_PARM_DESC(most_busy, "how many devices have taken their time at once");

/* What a device does that its driver waits for. */
static void take_time(void)
{
	int now;

	if (!delay_ms)
		return;
	now = atomic_inc_return(&busy);
	if (now > READ_ONCE(most_busy))
		WRITE_ONCE(most_busy, now);
	msleep(delay_ms);
	atomic_dec(&busy);
}

static unsigned int records = 1;
module_param(records, uint, 0644);
MODULE_PARM_DESC(records, "how often stop-and-copy has the whole state");

static struct mdev_type mapped_type = { .sysfs_name = "mapped", .pretty_name = "Memory, migration v1, mapped data" };

static void begin_record(struct v1mem *m, bool last)
{
	struct record *header = (struct record *)m->out;

	header->magic = cpu_to_le32(MAGIC);
	header->last = cpu_to_le32(last);
	header->length = cpu_to_le32(BAR_SIZE);
	header->reserved = 0;
	memcpy(m->out + sizeof(*header), m->bar, BAR_SIZE);
	m->out_length = RECORD_SIZE;
	m->out_position = 0;
}

static void next_record(struct v1mem *m)
{
	m->later--;
	begin_record(m, m->later == 0);
}

static void end_session(struct v1mem *m)
{
	m->out_length = m->out_position = m->buffer = m->in_length = m->later = 0;
	m->shown = m->complete = false;
}

static void reset(struct v1mem *m)
{
	end_session(m);
	m->device_state = RUNNING;
}

static bool leads_to(u32 from, u32 to)
{
	switch (from) {
	case RUNNING:
		return to <= RESUMING;
	case STOPPED:
		return to == RUNNING || to == STOP_COPY || to == RESUMING || to == STOPPED;
	case PRE_COPY:
		return to <= PRE_COPY;
	case STOP_COPY:
		return to <= STOP_COPY;
	default:
		return to == RUNNING || to == RESUMING;
	}
}

static int set_device_state(struct v1mem *m, u32 to)
{
	u32 from = m->device_state;

	if (!leads_to(from, to))
		return -EINVAL;
	if (from == to)
		return 0;
	if (from == RESUMING && !m->complete)
		return -EINVAL;
	/* A record that was begun goes on: from pre-copy to stop-and-copy the stream is one. */
	if (from != PRE_COPY || to != STOP_COPY || (m->out_position == 0 && !m->shown))
		end_session(m);
	m->device_state = to;
	if (to == PRE_COPY)
		begin_record(m, false);
	if (to == STOP_COPY) {
		m->later = max(records, 1u);
		if (m->out_position == m->out_length)
			next_record(m);
	}
	return 0;
}

/* The read that says: the buffer that was shown has been consumed. */
static u64 pending_bytes(struct v1mem *m)
{
	take_time();
	if (m->shown) {
		m->out_position += m->buffer;
		m->buffer = 0;
		m->shown = false;
		if (m->device_state == STOP_COPY && m->out_position == m->out_length && m->later > 0)
			next_record(m);
	}
	return m->out_length - m->out_position + (u64)m->later * RECORD_SIZE;
}

static void show_buffer(struct v1mem *m)
{
	if (m->device_state != PRE_COPY && m->device_state != STOP_COPY)
		return;
	if (!m->buffer) {
		m->buffer = min_t(u32, m->section_size, m->out_length - m->out_position);
		memcpy(m->section, m->out + m->out_position, m->buffer);
	}
	m->shown = m->buffer > 0;
}

/* Takes a transaction: checks each header as soon as it is there. */
static int take(struct v1mem *m, u64 length)
{
	const struct record *header = (const struct record *)m->in;
	u32 at = 0;

	if (m->device_state != RESUMING || length > m->section_size)
		return -EINVAL;
	take_time();
	while (at < length) {
		bool in_header = m->in_length < sizeof(*header);
		u32 end = in_header ? sizeof(*header) : RECORD_SIZE;
		u32 piece = min_t(u32, length - at, end - m->in_length);

		if (m->complete)
			return -EINVAL;
		memcpy(m->in + m->in_length, m->section + at, piece);
		m->in_length += piece;
		at += piece;
		if (in_header && m->in_length == sizeof(*header) &&
		    (le32_to_cpu(header->magic) != MAGIC || le32_to_cpu(header->length) != BAR_SIZE))
			return -EINVAL;
		if (m->in_length == RECORD_SIZE) {
			memcpy(m->bar, m->in + sizeof(*header), BAR_SIZE);
			m->complete = header->last != 0;
			m->in_length = 0;
		}
	}
	return 0;
}

static ssize_t access_register(struct v1mem *m, u64 at, void *value, size_t count, bool write)
{
	u64 *u = value;
	u32 state;

	if (at == offsetof(struct vfio_device_migration_info, device_state) && count == 4) {
		if (write) {
			memcpy(&state, value, 4);
			return set_device_state(m, state) ?: 4;
		}
		memcpy(value, &m->device_state, 4);
		return 4;
	}
	if (at == offsetof(struct vfio_device_migration_info, reserved) && count == 4) {
		if (!write)
			memset(value, 0, 4); /* a write is ignored (linux/vfio.h 5.8) */
		return 4;
	}
	if (count != 8)
		return -EINVAL;
	switch (at) {
	case offsetof(struct vfio_device_migration_info, pending_bytes):
		if (write)
			return -EINVAL;
		*u = pending_bytes(m);
		return 8;
	case offsetof(struct vfio_device_migration_info, data_offset):
		if (write)
			return -EINVAL;
		show_buffer(m);
		*u = SECTION_AT;
		return 8;
	case offsetof(struct vfio_device_migration_info, data_size):
		if (write)
			return take(m, *u) ?: 8;
		*u = m->buffer;
		return 8;
	default:
		return -EINVAL;
	}
}

static void *memory_of(struct v1mem *m, u64 pos, size_t count)
{
	u64 at = pos & (REGION_OFFSET(1) - 1);

	switch (REGION_INDEX(pos)) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return at <= BAR_SIZE && count <= BAR_SIZE - at ? m->bar + at : NULL;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return at <= CONFIG_SIZE && count <= CONFIG_SIZE - at ? m->config + at : NULL;
	case MIGRATION_INDEX:
		at -= SECTION_AT;
		return !m->mapped && at <= m->section_size && count <= m->section_size - at ? m->section + at : NULL;
	default:
		return NULL;
	}
}

static ssize_t v1mem_access(struct v1mem *m, char __user *buf, size_t count, loff_t *ppos, bool write)
{
	u64 at = *ppos & (REGION_OFFSET(1) - 1);
	ssize_t done = count;
	u64 value = 0;
	void *memory;

	mutex_lock(&m->lock);
	if (REGION_INDEX(*ppos) == MIGRATION_INDEX && at < SECTION_AT) {
		if (count > sizeof(value))
			done = -EINVAL;
		else if (write && copy_from_user(&value, buf, count))
			done = -EFAULT;
		else
			done = access_register(m, at, &value, count, write);
		if (done > 0 && !write && copy_to_user(buf, &value, count))
			done = -EFAULT;
	} else {
		memory = memory_of(m, *ppos, count);
		if (!memory)
			done = -EINVAL;
		else if (write ? copy_from_user(memory, buf, count) : copy_to_user(buf, memory, count))
			done = -EFAULT;
	}
	mutex_unlock(&m->lock);
	if (done > 0)
		*ppos += done;
	return done;
}

static ssize_t v1mem_read(struct vfio_device *vdev, char __user *buf, size_t count, loff_t *ppos)
{
	return v1mem_access(container_of(vdev, struct v1mem, vdev), buf, count, ppos, false);
}

static ssize_t v1mem_write(struct vfio_device *vdev, const char __user *buf, size_t count, loff_t *ppos)
{
	return v1mem_access(container_of(vdev, struct v1mem, vdev), (char __user *)buf, count, ppos, true);
}

static vm_fault_t section_fault(struct vm_fault *fault)
{
	struct v1mem *m = fault->vma->vm_private_data;

	if (fault->pgoff != (REGION_OFFSET(MIGRATION_INDEX) + SECTION_AT) >> PAGE_SHIFT)
		return VM_FAULT_SIGBUS;
	atomic_inc(&m->faults);
	fault->page = virt_to_page(m->section);
	get_page(fault->page);
	return 0;
}

static const struct vm_operations_struct section_ops = { .fault = section_fault };

static int v1mem_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	struct v1mem *m = container_of(vdev, struct v1mem, vdev);

	if (!m->mapped || vma->vm_end - vma->vm_start != PAGE_SIZE ||
	    vma->vm_pgoff != (REGION_OFFSET(MIGRATION_INDEX) + SECTION_AT) >> PAGE_SHIFT)
		return -EINVAL;
	vma->vm_private_data = m;
	vma->vm_ops = &section_ops;
	atomic_inc(&m->maps);
	return 0;
}

/* The migration region's type, and which part of it may be mapped. */
static int add_capabilities(struct v1mem *m, struct vfio_info_cap *caps)
{
	struct vfio_region_info_cap_type type = {
		.header.id = VFIO_REGION_INFO_CAP_TYPE,
		.header.version = 1,
		.type = VFIO_REGION_TYPE_MIGRATION_DEPRECATED,
		.subtype = VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED,
	};
	struct {
		struct vfio_region_info_cap_sparse_mmap header;
		struct vfio_region_sparse_mmap_area area;
	} sparse = {
		.header.header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP,
		.header.header.version = 1,
		.header.nr_areas = 1,
		.area = { .offset = SECTION_AT, .size = m->section_size },
	};
	int ret = vfio_info_add_capability(caps, &type.header, sizeof(type));

	return ret || !m->mapped ? ret : vfio_info_add_capability(caps, &sparse.header.header, sizeof(sparse));
}

static int get_region_info(struct v1mem *m, void __user *arg)
{
	struct vfio_info_cap caps = { .buf = NULL, .size = 0 };
	struct vfio_region_info info;
	int ret = 0;

	if (copy_from_user(&info, arg, sizeof(info)))
		return -EFAULT;
	if (info.argsz < sizeof(info) || info.index > MIGRATION_INDEX)
		return -EINVAL;
	info.offset = REGION_OFFSET(info.index);
	info.cap_offset = 0;
	info.size = info.index == VFIO_PCI_BAR0_REGION_INDEX ? BAR_SIZE :
		    info.index == VFIO_PCI_CONFIG_REGION_INDEX ? CONFIG_SIZE :
		    info.index == MIGRATION_INDEX ? SECTION_AT + m->section_size : 0;
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	if (info.index == MIGRATION_INDEX) {
		ret = add_capabilities(m, &caps);
		if (ret)
			return ret;
		info.flags |= VFIO_REGION_INFO_FLAG_CAPS | (m->mapped ? VFIO_REGION_INFO_FLAG_MMAP : 0);
		if (info.argsz < sizeof(info) + caps.size) {
			info.argsz = sizeof(info) + caps.size;
		} else {
			vfio_info_cap_shift(&caps, sizeof(info));
			info.cap_offset = sizeof(info);
			if (copy_to_user(arg + sizeof(info), caps.buf, caps.size))
				ret = -EFAULT;
		}
		kfree(caps.buf);
	}
	if (!ret && copy_to_user(arg, &info, sizeof(info)))
		ret = -EFAULT;
	return ret;
}

static long v1mem_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long argument)
{
	struct v1mem *m = container_of(vdev, struct v1mem, vdev);
	void __user *arg = (void __user *)argument;
	struct vfio_device_info device;
	struct vfio_irq_info irq;
	const size_t least = offsetofend(struct vfio_device_info, num_irqs);

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		if (copy_from_user(&device, arg, least))
			return -EFAULT;
		if (device.argsz < least)
			return -EINVAL;
		device.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		device.num_regions = MIGRATION_INDEX + 1;
		device.num_irqs = VFIO_PCI_NUM_IRQS;
		return copy_to_user(arg, &device, least) ? -EFAULT : 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return get_region_info(m, arg);
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
		mutex_lock(&m->lock);
		reset(m);
		mutex_unlock(&m->lock);
		return 0;
	default:
		return -ENOTTY;
	}
}

static int v1mem_init_dev(struct vfio_device *vdev)
{
	struct v1mem *m = container_of(vdev, struct v1mem, vdev);

	m->section = (u8 *)get_zeroed_page(GFP_KERNEL);
	if (!m->section)
		return -ENOMEM;
	m->mapped = to_mdev_device(vdev->dev)->type == &mapped_type;
	m->section_size = m->mapped ? PAGE_SIZE : SECTION_SIZE;
	mutex_init(&m->lock);
	*(__le16 *)(m->config + PCI_VENDOR_ID) = cpu_to_le16(0x1234);
	*(__le16 *)(m->config + PCI_DEVICE_ID) = cpu_to_le16(0x7631);
	*(__le32 *)(m->config + PCI_CLASS_REVISION) = cpu_to_le32(0xff000001);
	reset(m);
	return 0;
}

static void v1mem_release_dev(struct vfio_device *vdev)
{
	free_page((unsigned long)container_of(vdev, struct v1mem, vdev)->section);
}

static const struct vfio_device_ops v1mem_ops = {
	.name = "vfio-v1mem",
	.init = v1mem_init_dev,
	.release = v1mem_release_dev,
	.read = v1mem_read,
	.write = v1mem_write,
	.mmap = v1mem_mmap,
	.ioctl = v1mem_ioctl,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};

static int v1mem_probe(struct mdev_device *mdev)
{
	struct v1mem *m = vfio_alloc_device(v1mem, vdev, &mdev->dev, &v1mem_ops);
	int ret;

	if (IS_ERR(m))
		return PTR_ERR(m);
	ret = vfio_register_emulated_iommu_dev(&m->vdev);
	if (ret) {
		vfio_put_device(&m->vdev);
		return ret;
	}
	dev_set_drvdata(&mdev->dev, m);
	return 0;
}

static void v1mem_remove(struct mdev_device *mdev)
{
	struct v1mem *m = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&m->vdev);
	vfio_put_device(&m->vdev);
}

static unsigned int v1mem_get_available(struct mdev_type *type)
{
	return 16;
}

static ssize_t maps_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct v1mem *m = dev_get_drvdata(dev);

	return sysfs_emit(text, "%d\n", atomic_read(&m->maps));
}
static DEVICE_ATTR_RO(maps);

static ssize_t faults_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct v1mem *m = dev_get_drvdata(dev);

	return sysfs_emit(text, "%d\n", atomic_read(&m->faults));
}
static DEVICE_ATTR_RO(faults);

static struct attribute *v1mem_attributes[] = { &dev_attr_maps.attr, &dev_attr_faults.attr, NULL };
static const struct attribute_group v1mem_group = { .name = "v1mem", .attrs = v1mem_attributes };
static const struct attribute_group *v1mem_groups[] = { &v1mem_group, NULL };

static struct mdev_driver v1mem_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.driver = {
		.name = "v1mem",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
		.dev_groups = v1mem_groups,
	},
	.probe = v1mem_probe,
	.remove = v1mem_remove,
	.get_available = v1mem_get_available,
};

static struct mdev_type plain_type = { .sysfs_name = "1", .pretty_name = "Memory, migration v1" };
static struct mdev_type *v1mem_types[] = { &plain_type, &mapped_type };
static struct class *v1mem_class;
static struct device *v1mem_device;
static struct mdev_parent v1mem_parent;

static int __init v1mem_init(void)
{
	int ret;

	v1mem_class = class_create("v1mem");
	if (IS_ERR(v1mem_class))
		return PTR_ERR(v1mem_class);
	v1mem_device = device_create(v1mem_class, NULL, MKDEV(0, 0), NULL, "v1mem");
	if (IS_ERR(v1mem_device)) {
		ret = PTR_ERR(v1mem_device);
		goto no_device;
	}
	ret = mdev_register_driver(&v1mem_driver);
	if (ret)
		goto no_driver;
	ret = mdev_register_parent(&v1mem_parent, v1mem_device, &v1mem_driver, v1mem_types, ARRAY_SIZE(v1mem_types));
	if (!ret)
		return 0;
	mdev_unregister_driver(&v1mem_driver);
no_driver:
	device_unregister(v1mem_device);
no_device:
	class_destroy(v1mem_class);
	return ret;
}

static void __exit v1mem_exit(void)
{
	mdev_unregister_parent(&v1mem_parent);
	mdev_unregister_driver(&v1mem_driver);
	device_unregister(v1mem_device);
	class_destroy(v1mem_class);
}

module_init(v1mem_init);
module_exit(v1mem_exit);
MODULE_DESCRIPTION("A VFIO device that speaks migration protocol v1, for tests");
MODULE_LICENSE("GPL");
