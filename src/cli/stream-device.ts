import { ShimError } from '../error.ts';

/** What a device in a migration file is called by. */
interface Called {
  /** Its sections' name: a path and `/vfio`, or `vfio`. */
  readonly device: string;
  readonly instanceId: number;
}

const withoutSuffix = (device: string): string => device.replace(/\/vfio$/, '');

/** Whether DEVICE of a command means this device: its name, with or without `/vfio`; `#` and its instance tell equal names apart. */
export function isCalled(name: string, { device, instanceId }: Called): boolean {
  const [, plain = name, instance] = /^(.*)#(\d+)$/.exec(name) ?? [];
  if (instance !== undefined && Number(instance) !== instanceId) return false;
  return plain === device || plain === withoutSuffix(device);
}

/** What a device is called by, so that it is told from the others. */
export function nameOf({ device, instanceId }: Called, devices: readonly Called[]): string {
  const plain = withoutSuffix(device);
  return devices.filter((each) => each.device === device).length > 1 ? `${plain}#${instanceId}` : plain;
}

/** The one device that DEVICE means. Throws `ERR_ARGUMENT`. */
export function chosenDevice<T extends Called>(name: string, devices: readonly T[]): T {
  const [chosen, another] = devices.filter((device) => isCalled(name, device));
  if (chosen !== undefined && another === undefined) return chosen;
  const names = devices.map((device) => nameOf(device, devices)).join(', ') || 'none';
  const what = chosen === undefined ? 'is not in the file' : 'is the name of several';
  throw new ShimError('ERR_ARGUMENT', `device ${JSON.stringify(name)}: ${what}; its devices: ${names}`);
}
