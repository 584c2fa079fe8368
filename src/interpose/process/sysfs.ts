import { existsSync, mkdirSync, readlinkSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ShimError } from '../../error.ts';
import { freshDirectory } from './fresh-directory.ts';
import type { Plan, PlannedDevice } from '../run/plan.ts';

/**
 * Writes, for each device, a directory such as sysfs has one: `DIR/NAME` with a link `iommu_group` whose last part is the
 * group's number. That is all a VMM looks at. Returns the absolute DIR and whether it is a fresh one of ours.
 */
export function writeSysfs(
  directory: string | undefined,
  devices: readonly PlannedDevice[],
): { path: string; fresh: boolean } {
  if (directory === '') throw new ShimError('ERR_ARGUMENT', '--sysfs: the name of the directory is empty');
  try {
    const path = directory === undefined ? freshDirectory('vfio-shim-', '; or give --sysfs') : resolve(directory);
    for (const { name, group } of devices) {
      makeDirectory(join(path, 'iommu_groups', String(group)));
      makeDirectory(join(path, name));
      linkAnew(`../iommu_groups/${group}`, join(path, name, 'iommu_group'));
    }
    return { path, fresh: directory === undefined };
  } catch (error) {
    if (error instanceof ShimError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new ShimError('ERR_ARGUMENT', `--sysfs ${directory}: ${why}`, { cause: error });
  }
}

/** Removes a fresh directory of ours. Keeper and supervisor both do so when they end: neither knows whether it is the last. */
export function removeSysfs({ sysfs }: Pick<Plan, 'sysfs'>): void {
  if (sysfs?.fresh !== true) return;
  try {
    rmSync(sysfs.path, { recursive: true, force: true });
  } catch {
    // another of us is at it, or what somebody put there stays
  }
}

/** As `mkdir -p`. Node's own never returns if a directory takes no entries (`/proc`). */
function makeDirectory(path: string): void {
  if (!existsSync(dirname(path))) makeDirectory(dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !statSync(path).isDirectory()) throw error;
  }
}

function linkAnew(target: string, path: string): void {
  try {
    symlinkSync(target, path);
  } catch (error) {
    // of an earlier run with the same devices
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || readlinkSync(path) !== target) throw error;
  }
}
