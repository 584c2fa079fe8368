import { ShimError } from '../error.ts';
import { checkDma } from './dma-options.ts';
import {
  DRIVERS,
  driversWith,
  isDriver,
  kindOf,
  optionsOf,
  type DriverName,
  type DriverSpec,
  type SimSpec,
} from './drivers.ts';
import type { Wrong } from './option.ts';

/** Parses a SPEC such as `qat,size=256M,fault=read@3:EIO`. Throws `ERR_SPEC` naming what is wrong. */
export function parseSpec(text: string): DriverSpec {
  const [driver = '', ...parts] = text.split(',');
  const bad = (why: string): ShimError =>
    new ShimError('ERR_SPEC', `device ${JSON.stringify(text)}: ${why}`, { errno: 'EINVAL' });
  if (!isDriver(driver)) throw bad(`no driver ${JSON.stringify(driver)}; there are ${DRIVERS.join(', ')}`);
  const options = optionsOf(driver);
  const given = new Map<string, string[]>();
  for (const part of parts) {
    const at = part.indexOf('=');
    const [name, value] = at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
    if (!Object.hasOwn(options, name)) throw bad(noOption(driver, name));
    given.set(name, [...(given.get(name) ?? []), value]);
  }
  const values = Object.entries(options).map(([name, option]) => {
    const texts = given.get(name);
    const wrong: Wrong = (why, value) => bad(`${name}${value === undefined ? '' : `=${value}`} ${why}`);
    return [name, texts === undefined ? option.initial : option.parse(texts, wrong)] as const;
  });
  const explicit = values.filter(([name]) => given.has(name));
  const initial = { driver, ...Object.fromEntries(values) } as DriverSpec;
  const spec = { ...initial, ...kindOf(initial).defaults?.(initial), ...Object.fromEntries(explicit) } as DriverSpec;
  const why = checkDma(spec) ?? kindOf(spec).check?.(spec);
  if (why !== undefined) throw bad(why);
  return spec;
}

/** The shortest SPEC that `parseSpec` takes for this. */
export function formatSpec(spec: SimSpec): string {
  if (spec.driver === 'recording') return `recording:${spec.file}`;
  const values = new Map<string, unknown>(Object.entries(spec));
  const defaults = new Map<string, unknown>(Object.entries(kindOf(spec).defaults?.(spec) ?? {}));
  const parts = Object.entries(optionsOf(spec.driver)).flatMap(([name, option]) => {
    const texts = option.format(values.get(name));
    const initial = option.format(defaults.get(name) ?? option.initial);
    return texts.join() === initial.join() ? [] : texts.map((text) => `${name}=${text}`);
  });
  return [spec.driver, ...parts].join(',');
}

/** A small device of a driver: one with which code is rehearsed. */
export function smallSpec(driver: DriverName): SimSpec {
  return { ...parseSpec(driver), ...kindOf({ driver }).small };
}

function noOption(driver: DriverName, name: string): string {
  const others = driversWith(name);
  const whose = others.length > 0 ? `, which ${others.join(', ')} ${others.length > 1 ? 'have' : 'has'}` : '';
  return `no option ${JSON.stringify(name)} of ${driver}${whose}; there are ${Object.keys(optionsOf(driver)).join(', ')}`;
}
