/*
 * Preloaded into a VMM: VFIO_DEVICE_FEATURE with the feature FEATURE_INDEX fails with FEATURE_ERRNO, whatever the device would say.
 * All other ioctls are the kernel's.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...) {
  va_list more;
  va_start(more, request);
  void *argument = va_arg(more, void *);
  va_end(more);
  if (request == VFIO_DEVICE_FEATURE) {
    const struct vfio_device_feature *feature = argument;
    if ((feature->flags & VFIO_DEVICE_FEATURE_MASK) == strtoul(getenv("FEATURE_INDEX"), NULL, 10)) {
      errno = atoi(getenv("FEATURE_ERRNO"));
      return -1;
    }
  }
  return (int)syscall(SYS_ioctl, fd, request, argument);
}
