import { draft2018 } from './draft-2018.ts';
import { draft2019 } from './draft-2019.ts';
import type { DriverKind } from './driver-kind.ts';
import { hisi } from './hisi.ts';
import { hisiV1 } from './hisi-v1.ts';
import { mlx5 } from './mlx5.ts';
import { mlx5V1 } from './mlx5-v1.ts';
import { mtty } from './mtty.ts';
import { nvidiaV1 } from './nvidia-v1.ts';
import type { Options, ValuesOf } from './option.ts';
import { pds } from './pds.ts';
import { qat } from './qat.ts';
import { recordedKind, type RecordedSpec } from './recorded.ts';
import { spdkV1 } from './spdk-v1.ts';
import { vendorV1 } from './vendor-v1.ts';
import { virtio } from './virtio.ts';
import { xe } from './xe.ts';

/** Every simulated driver, by the name that a SPEC gives it: a new one is a file, and a row here. */
const kinds = {
  qat,
  mlx5,
  mtty,
  pds,
  hisi,
  virtio,
  xe,
  'vendor-v1': vendorV1,
  'hisi-v1': hisiV1,
  'mlx5-v1': mlx5V1,
  'nvidia-v1': nvidiaV1,
  'spdk-v1': spdkV1,
  'draft-2018': draft2018,
  'draft-2019': draft2019,
} as const satisfies Readonly<Record<string, DriverKind>>;

/** The name that a SPEC has for a simulated driver. */
export type DriverName = keyof typeof kinds;
/** The names of all simulated drivers, in the order of the table. */
export const DRIVERS = Object.keys(kinds) as readonly DriverName[];

/** A simulated device, as `--device` describes it: a driver, and a value for each of its options; or a recorded one. */
export type SimSpec = DriverSpec | RecordedSpec;
/** Of a driver of the table. */
export type DriverSpec = {
  readonly [D in DriverName]: { readonly driver: D } & ValuesOf<(typeof kinds)[D]['options']>;
}[DriverName];

/** The driver of a SPEC. Its functions are to be given values of its own options, as that SPEC has them. */
export function kindOf(spec: { readonly driver: DriverName } | RecordedSpec): DriverKind {
  return spec.driver === 'recording' ? recordedKind(spec) : kinds[spec.driver];
}

/** The options of a driver, by name. */
export function optionsOf(driver: DriverName): Options {
  return kinds[driver].options;
}

export function driversWith(option: string): DriverName[] {
  return DRIVERS.filter((driver) => Object.hasOwn(optionsOf(driver), option));
}

export function isDriver(name: string): name is DriverName {
  return Object.hasOwn(kinds, name);
}

/** The driver of the table with which code is rehearsed for this one. */
export function rehearsedAs(spec: SimSpec): DriverName {
  return spec.driver === 'recording' ? driverSpeaking(spec.protocol) : spec.driver;
}

/** The driver that stands for all that speak a protocol: the first in the table. */
export function driverSpeaking(protocol: DriverKind['protocol']): DriverName {
  const driver = DRIVERS.find((name) => kinds[name].protocol === protocol);
  if (driver === undefined) throw new Error(`no simulated driver speaks ${protocol}`);
  return driver;
}
