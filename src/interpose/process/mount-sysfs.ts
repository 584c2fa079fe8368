import { ShimError } from '../../error.ts';
import { bindMount, privateMounts } from '../../sys/mount.ts';

/** Where the kernel lists the devices of the bus. */
const BUS = '/sys/bus/pci/devices';

/**
 * Shows the directory to this process, and to what it starts from now on, in the place of the bus's devices. Throws `ERR_SYSCALL` if it may
 * not.
 */
export function mountSysfs(path: string): void {
  try {
    privateMounts();
    bindMount(path, BUS);
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    const remedy = error.errno === 'EPERM' ? '; it takes CAP_SYS_ADMIN, as `unshare -rm` gives it' : '';
    throw new ShimError(error.code, `--mount-sysfs: ${error.message}${remedy}`, {
      cause: error,
      ...(error.errno !== undefined && { errno: error.errno }),
    });
  }
}
