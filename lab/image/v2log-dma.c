// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* DMA of v2log: what it pins, what it writes when it is told to and by itself, and the log of that. */
#include <linux/interval_tree.h>
#include <linux/iommu.h>
#include <linux/iova_bitmap.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include "v2log.h"

/* Pages that the writer writes at once; the device is locked meanwhile. */
#define BURST 256

static bool is_addressable(u64 iova, u64 pages)
{
	return IS_ALIGNED(iova, PAGE_SIZE) && pages <= IOVA_PAGES && iova >> PAGE_SHIFT <= IOVA_PAGES - pages;
}

/* Writes {page number, value} to the begin of a page, and logs it. */
static int write_page(struct v2log *d, u64 page, u64 value)
{
	__le64 data[2] = { cpu_to_le64(page), cpu_to_le64(value) };
	int ret = vfio_dma_rw(&d->vdev, page << PAGE_SHIFT, data, sizeof(data), true);

	if (!ret && d->logging && test_bit(page, d->covered))
		__set_bit(page, d->logged);
	return ret;
}

int v2log_write_pages(struct v2log *d, u64 iova, u64 pages, u64 value)
{
	u64 first = iova >> PAGE_SHIFT;
	u64 page;
	int ret = 0;

	if (!may_initiate(d))
		return -EBUSY;
	if (!is_addressable(iova, pages))
		return -EINVAL;
	for (page = first; page < first + pages && !ret; page++)
		ret = write_page(d, page, value);
	return ret;
}

int v2log_pin(struct v2log *d, u64 iova, u64 pages)
{
	unsigned long page = iova >> PAGE_SHIFT, end = page + pages;
	struct page **pinned;
	int ret = 0;

	if (!is_addressable(iova, pages))
		return -EINVAL;
	pinned = kcalloc(VFIO_PIN_PAGES_MAX_ENTRIES, sizeof(*pinned), GFP_KERNEL);
	if (!pinned)
		return -ENOMEM;
	while ((page = find_next_zero_bit(d->pinned, end, page)) < end) {
		unsigned long until = find_next_bit(d->pinned, end, page);
		int count = min_t(unsigned long, until - page, VFIO_PIN_PAGES_MAX_ENTRIES);

		ret = vfio_pin_pages(&d->vdev, (dma_addr_t)page << PAGE_SHIFT, count, IOMMU_READ | IOMMU_WRITE, pinned);
		if (ret < 0)
			break;
		bitmap_set(d->pinned, page, ret);
		page += ret;
		ret = 0;
	}
	kfree(pinned);
	return ret;
}

void v2log_unpin(struct v2log *d, u64 iova, u64 length)
{
	unsigned long end = min_t(u64, IOVA_PAGES, (iova >> PAGE_SHIFT) + (length >> PAGE_SHIFT));
	unsigned long page = min_t(u64, IOVA_PAGES, iova >> PAGE_SHIFT);

	while ((page = find_next_bit(d->pinned, end, page)) < end) {
		unsigned long until = find_next_zero_bit(d->pinned, end, page);
		int count = min_t(unsigned long, until - page, VFIO_PIN_PAGES_MAX_ENTRIES);

		vfio_unpin_pages(&d->vdev, (dma_addr_t)page << PAGE_SHIFT, count);
		bitmap_clear(d->pinned, page, count);
	}
}

int v2log_start_writer(struct v2log *d, u64 iova, u64 pages, u64 rate)
{
	if (!is_addressable(iova, pages) || (rate && !pages) || rate > NSEC_PER_SEC)
		return -EINVAL;
	d->writer.iova = iova;
	d->writer.pages = pages;
	d->writer.rate = rate;
	v2log_go_on(d);
	return 0;
}

/* Has the writer begin anew with what is due, if it may write. */
void v2log_go_on(struct v2log *d)
{
	d->writer.since = ktime_get();
	d->writer.written = 0;
	if (d->writer.rate && may_initiate(d))
		mod_delayed_work(system_wq, &d->work, 1);
}

void v2log_work(struct work_struct *work)
{
	struct v2log *d = container_of(to_delayed_work(work), struct v2log, work);
	struct writer *w = &d->writer;
	u64 elapsed, due;

	mutex_lock(&d->lock);
	if (w->rate && may_initiate(d)) {
		elapsed = ktime_to_ns(ktime_sub(ktime_get(), w->since));
		due = mul_u64_u64_div_u64(elapsed, w->rate, NSEC_PER_SEC) - w->written;
		if (due > BURST) {
			/* It is behind, and does not catch up. */
			due = BURST;
			w->since = ktime_get();
			w->written = 0;
		} else {
			w->written += due;
		}
		for (; due; due--) {
			u64 page = (w->iova >> PAGE_SHIFT) + w->counter % w->pages;

			if (write_page(d, page, w->counter + 1))
				break;
			w->counter++;
		}
		mod_delayed_work(system_wq, &d->work, 1);
	}
	mutex_unlock(&d->lock);
}

static int log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes, u64 *page_size)
{
	struct v2log *d = v2log_of(vdev);
	struct interval_tree_node *range;
	int ret = 0;

	mutex_lock(&d->lock);
	if (d->registers[REG_FAULTS] & FAULT_START_EOPNOTSUPP)
		ret = -EOPNOTSUPP;
	else if (d->registers[REG_FAULTS] & FAULT_START_E2BIG)
		ret = -E2BIG;
	else if (d->logging)
		ret = -EINVAL;
	if (ret)
		goto out;
	bitmap_zero(d->covered, IOVA_PAGES);
	bitmap_zero(d->logged, IOVA_PAGES);
	for (range = interval_tree_iter_first(ranges, 0, (IOVA_PAGES << PAGE_SHIFT) - 1); range;
	     range = interval_tree_iter_next(range, 0, (IOVA_PAGES << PAGE_SHIFT) - 1)) {
		unsigned long first = range->start >> PAGE_SHIFT;
		unsigned long last = min(range->last >> PAGE_SHIFT, IOVA_PAGES - 1);

		bitmap_set(d->covered, first, last - first + 1);
	}
	d->logging = true;
	*page_size = PAGE_SIZE;
out:
	mutex_unlock(&d->lock);
	return ret;
}

static int log_stop(struct vfio_device *vdev)
{
	struct v2log *d = v2log_of(vdev);

	mutex_lock(&d->lock);
	d->logging = false;
	bitmap_zero(d->logged, IOVA_PAGES);
	mutex_unlock(&d->lock);
	return 0;
}

static int log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
			      struct iova_bitmap *dirty)
{
	struct v2log *d = v2log_of(vdev);
	unsigned long page = min(iova >> PAGE_SHIFT, IOVA_PAGES);
	unsigned long end = min((iova + length) >> PAGE_SHIFT, IOVA_PAGES);
	u64 *faults = &d->registers[REG_FAULTS];
	int ret = 0;
	bool drop;

	mutex_lock(&d->lock);
	drop = *faults & FAULT_DROP;
	if (!d->logging) {
		ret = -EINVAL;
	} else if (*faults & (FAULT_REPORT | FAULT_REPORT_ONCE)) {
		*faults &= ~(u64)FAULT_REPORT_ONCE;
		bitmap_clear(d->logged, page, end - page);
		ret = -EIO;
	} else {
		for_each_set_bit_from(page, d->logged, end) {
			__clear_bit(page, d->logged);
			if (drop)
				d->registers[REG_DROPPED]++;
			else
				iova_bitmap_set(dirty, page << PAGE_SHIFT, PAGE_SIZE);
			drop = false;
		}
	}
	mutex_unlock(&d->lock);
	return ret;
}

const struct vfio_log_ops v2log_log_ops = {
	.log_start = log_start,
	.log_stop = log_stop,
	.log_read_and_clear = log_read_and_clear,
};
