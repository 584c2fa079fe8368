/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * v2log: a mediated device that writes to its user's memory by DMA, logs that, and speaks migration protocol v2 (linux/vfio.h,
 * 6.2). BAR 0 is memory and nothing else; BAR 2 has the registers by which the guest orders DMA.
 */
#ifndef V2LOG_H
#define V2LOG_H

#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/vfio.h>
#include <linux/workqueue.h>

#define MEMORY_SIZE 8192
/* The device addresses 4 GiB. */
#define IOVA_PAGES (1ul << (32 - PAGE_SHIFT))

/* Registers of 8 bytes in BAR 2, at 8 times their number. */
enum {
	/* What a command is about. */
	REG_IOVA,
	REG_PAGES,
	REG_VALUE,
	/* Write: the command. */
	REG_COMMAND,
	/* 0, or the errno of the last command, negative. */
	REG_RESULT,
	/* Pages that the background writer has written. */
	REG_COUNTER,
	/* Pages that are pinned, and pages in the log that were not reported yet. */
	REG_PINNED,
	REG_LOGGED,
	/* What goes wrong on purpose: FAULT_*. */
	REG_FAULTS,
	/* Pages that FAULT_DROP has left out of reports. */
	REG_DROPPED,
	REGISTERS,
};

enum {
	/* Writes {page number, VALUE} to the begin of PAGES pages from IOVA on. */
	COMMAND_WRITE = 1,
	/* Pins these pages, as hardware does that may write to any of them. */
	COMMAND_PIN,
	/* VALUE pages a second are written with {page number, counter}, over and over these pages, while DMA may be initiated. */
	COMMAND_WRITER,
};

enum {
	/* The log is lost for the range that the next REPORT, or each, asks for, and that fails with EIO. */
	FAULT_REPORT_ONCE = 1,
	FAULT_REPORT = 2,
	/* START fails. */
	FAULT_START_EOPNOTSUPP = 4,
	FAULT_START_E2BIG = 8,
	/* A REPORT forgets the first page that it should tell. */
	FAULT_DROP = 16,
};

struct writer {
	u64 iova, pages, rate;
	u64 counter;
	/* When the pages that are due are counted from, and how many were written since. */
	ktime_t since;
	u64 written;
};

struct session;

struct v2log {
	struct vfio_device vdev;
	struct mutex lock;
	u8 config[256];
	u8 memory[MEMORY_SIZE];
	u64 registers[REGISTERS];
	/* One bit for each page that can be addressed: pinned; to be logged; written to since it was reported. */
	unsigned long *pinned, *covered, *logged;
	bool logging;
	struct writer writer;
	struct delayed_work work;
	enum vfio_device_mig_state state;
	struct session *session;
};

static inline struct v2log *v2log_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct v2log, vdev);
}

/* RUNNING and PRE_COPY: in the other states, the P2P states among them, a device begins no DMA. */
static inline bool may_initiate(const struct v2log *d)
{
	return d->state == VFIO_DEVICE_STATE_RUNNING || d->state == VFIO_DEVICE_STATE_PRE_COPY;
}

/* v2log-dma.c. The device is locked. */
int v2log_write_pages(struct v2log *d, u64 iova, u64 pages, u64 value);
int v2log_pin(struct v2log *d, u64 iova, u64 pages);
void v2log_unpin(struct v2log *d, u64 iova, u64 length);
int v2log_start_writer(struct v2log *d, u64 iova, u64 pages, u64 rate);
void v2log_go_on(struct v2log *d);
/* v2log-dma.c. The device is not locked. */
void v2log_work(struct work_struct *work);
extern const struct vfio_log_ops v2log_log_ops;

/* v2log-migration.c. The device is locked. */
void v2log_end_session(struct v2log *d);
extern const struct vfio_migration_ops v2log_migration_ops;

#endif
