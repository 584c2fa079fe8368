// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Migration of v2log: STOP_COPY, P2P, PRE_COPY. The stream is a record for pre-copy, if there is one, and a last one. Each is the
 * whole state; the last one counts.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/slab.h>
#include "v2log.h"

#define MAGIC 0x474f4c32u /* 2LOG */
#define MAX_PINS 32

struct record {
	__le32 magic;
	__le32 last;
	__le64 counter;
	__le64 iova, pages, rate;
	/* What is pinned, as the device at the other end has to pin it. */
	__le64 pins;
	struct {
		__le64 iova, pages;
	} pin[MAX_PINS];
	u8 memory[MEMORY_SIZE];
};

/* The migration data between a state that has some and the next that has none. */
struct session {
	struct file *file;
	struct mutex lock;
	bool ended;
	/* Saving in pre-copy: there will be more. */
	bool precopy;
	struct record records[2];
	/* Bytes that are in `records`; the file's position says how many were read. */
	size_t length;
};

static ssize_t session_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	struct session *s = file->private_data;
	ssize_t done;

	if (pos)
		return -ESPIPE;
	mutex_lock(&s->lock);
	count = min_t(size_t, count, s->length - file->f_pos);
	if (s->ended)
		done = -ENODEV;
	else if (!count && s->precopy)
		done = -ENOMSG;
	else if (copy_to_user(to, (u8 *)s->records + file->f_pos, count))
		done = -EFAULT;
	else
		done = count;
	if (done > 0)
		file->f_pos += done;
	mutex_unlock(&s->lock);
	return done;
}

static ssize_t session_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct session *s = file->private_data;
	ssize_t done;

	if (pos)
		return -ESPIPE;
	mutex_lock(&s->lock);
	if (s->ended)
		done = -ENODEV;
	else if (count > sizeof(s->records) - s->length)
		done = -ENOSPC;
	else if (copy_from_user((u8 *)s->records + s->length, from, count))
		done = -EFAULT;
	else
		done = count;
	if (done > 0) {
		s->length += done;
		file->f_pos += done;
	}
	mutex_unlock(&s->lock);
	return done;
}

static long session_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct session *s = file->private_data;
	struct vfio_precopy_info info;
	const size_t least = offsetofend(struct vfio_precopy_info, dirty_bytes);
	long ret = 0;

	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, least))
		return -EFAULT;
	if (info.argsz < least)
		return -EINVAL;
	mutex_lock(&s->lock);
	info.flags = 0;
	info.initial_bytes = s->length - file->f_pos;
	info.dirty_bytes = 0;
	if (s->ended)
		ret = -ENODEV;
	else if (!s->precopy)
		ret = -EINVAL;
	mutex_unlock(&s->lock);
	if (!ret && copy_to_user((void __user *)arg, &info, least))
		ret = -EFAULT;
	return ret;
}

static int session_release(struct inode *inode, struct file *file)
{
	kvfree(file->private_data);
	return 0;
}

static const struct file_operations saving_fops = {
	.owner = THIS_MODULE,
	.read = session_read,
	.unlocked_ioctl = session_ioctl,
	.release = session_release,
};

static const struct file_operations resuming_fops = {
	.owner = THIS_MODULE,
	.write = session_write,
	.release = session_release,
};

/* The user gets the file, and the device keeps a reference of it until the session ends. */
static struct file *begin_session(struct v2log *d, bool saving)
{
	struct session *s = kvzalloc(sizeof(*s), GFP_KERNEL);
	struct file *file;

	if (!s)
		return ERR_PTR(-ENOMEM);
	mutex_init(&s->lock);
	file = anon_inode_getfile("v2log", saving ? &saving_fops : &resuming_fops, s, saving ? O_RDONLY : O_WRONLY);
	if (IS_ERR(file)) {
		kvfree(s);
		return file;
	}
	stream_open(file->f_inode, file);
	get_file(file);
	s->file = file;
	d->session = s;
	return file;
}

void v2log_end_session(struct v2log *d)
{
	struct session *s = d->session;

	if (!s)
		return;
	mutex_lock(&s->lock);
	s->ended = true;
	mutex_unlock(&s->lock);
	d->session = NULL;
	fput(s->file);
}

static int add_record(struct v2log *d, bool last)
{
	struct session *s = d->session;
	struct record *r;
	unsigned long begin, end;
	u64 pins = 0;
	int ret = 0;

	mutex_lock(&s->lock);
	r = (struct record *)((u8 *)s->records + s->length);
	memset(r, 0, sizeof(*r));
	for_each_set_bitrange(begin, end, d->pinned, IOVA_PAGES) {
		if (pins == MAX_PINS) {
			ret = -E2BIG;
			goto out;
		}
		r->pin[pins].iova = cpu_to_le64((u64)begin << PAGE_SHIFT);
		r->pin[pins].pages = cpu_to_le64(end - begin);
		pins++;
	}
	r->magic = cpu_to_le32(MAGIC);
	r->last = cpu_to_le32(last);
	r->counter = cpu_to_le64(d->writer.counter);
	r->iova = cpu_to_le64(d->writer.iova);
	r->pages = cpu_to_le64(d->writer.pages);
	r->rate = cpu_to_le64(d->writer.rate);
	r->pins = cpu_to_le64(pins);
	memcpy(r->memory, d->memory, MEMORY_SIZE);
	s->length += sizeof(*r);
	s->precopy = !last;
out:
	mutex_unlock(&s->lock);
	return ret;
}

/* Takes over the last record; the session is as it was if that fails. */
static int load(struct v2log *d)
{
	struct session *s = d->session;
	struct record *r;
	size_t count;
	u64 n;
	int ret = -EINVAL;

	mutex_lock(&s->lock);
	count = s->length / sizeof(*r);
	if (!count || s->length % sizeof(*r))
		goto out;
	r = &s->records[count - 1];
	if (le32_to_cpu(r->magic) != MAGIC || !le32_to_cpu(r->last) || le64_to_cpu(r->pins) > MAX_PINS)
		goto out;
	ret = v2log_start_writer(d, le64_to_cpu(r->iova), le64_to_cpu(r->pages), le64_to_cpu(r->rate));
	for (n = 0; n < le64_to_cpu(r->pins) && !ret; n++)
		ret = v2log_pin(d, le64_to_cpu(r->pin[n].iova), le64_to_cpu(r->pin[n].pages));
	if (ret)
		goto out;
	d->writer.counter = le64_to_cpu(r->counter);
	memcpy(d->memory, r->memory, MEMORY_SIZE);
out:
	mutex_unlock(&s->lock);
	return ret;
}

/* A session begins with its first record, or without one if it is to be written. */
static struct file *begin_saving(struct v2log *d, bool last)
{
	struct file *file = begin_session(d, true);
	int ret;

	if (IS_ERR(file))
		return file;
	ret = add_record(d, last);
	if (ret) {
		v2log_end_session(d);
		fput(file);
		return ERR_PTR(ret);
	}
	return file;
}

#define ARC(from, to) ((VFIO_DEVICE_STATE_##from) << 8 | (VFIO_DEVICE_STATE_##to))

/* One arc of the state machine; returns the file of a session that begins. */
static struct file *take_arc(struct v2log *d, enum vfio_device_mig_state to)
{
	int ret = 0;

	switch (d->state << 8 | to) {
	case ARC(RUNNING, PRE_COPY):
	case ARC(RUNNING_P2P, PRE_COPY_P2P):
		return begin_saving(d, false);
	case ARC(STOP, STOP_COPY):
		return begin_saving(d, true);
	case ARC(STOP, RESUMING):
		return begin_session(d, false);
	case ARC(PRE_COPY_P2P, STOP_COPY):
		return ERR_PTR(add_record(d, true));
	case ARC(RESUMING, STOP):
		ret = load(d);
		fallthrough;
	case ARC(PRE_COPY, RUNNING):
	case ARC(PRE_COPY_P2P, RUNNING_P2P):
	case ARC(STOP_COPY, STOP):
		if (!ret)
			v2log_end_session(d);
		return ERR_PTR(ret);
	case ARC(RUNNING, RUNNING_P2P):
	case ARC(RUNNING_P2P, RUNNING):
	case ARC(RUNNING_P2P, STOP):
	case ARC(STOP, RUNNING_P2P):
	case ARC(PRE_COPY, PRE_COPY_P2P):
	case ARC(PRE_COPY_P2P, PRE_COPY):
		return NULL;
	default:
		return ERR_PTR(-EINVAL);
	}
}

static struct file *set_state(struct vfio_device *vdev, enum vfio_device_mig_state to)
{
	struct v2log *d = v2log_of(vdev);
	struct file *file = NULL;
	bool initiated;

	mutex_lock(&d->lock);
	initiated = may_initiate(d);
	while (to != d->state) {
		enum vfio_device_mig_state next;
		int ret = vfio_mig_get_next_state(vdev, d->state, to, &next);

		file = ret ? ERR_PTR(ret) : take_arc(d, next);
		if (IS_ERR(file))
			break;
		d->state = next;
	}
	if (!initiated)
		v2log_go_on(d);
	mutex_unlock(&d->lock);
	return file;
}

static int get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct v2log *d = v2log_of(vdev);

	mutex_lock(&d->lock);
	*state = d->state;
	mutex_unlock(&d->lock);
	return 0;
}

static int get_data_size(struct vfio_device *vdev, unsigned long *length)
{
	*length = sizeof(struct record);
	return 0;
}

const struct vfio_migration_ops v2log_migration_ops = {
	.migration_set_state = set_state,
	.migration_get_state = get_state,
	.migration_get_data_size = get_data_size,
};
