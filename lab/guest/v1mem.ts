import { Mdev } from './mdev.ts';

/** A device of v1mem (lab/image/v1mem.c), which speaks v1; its BAR 0 is memory. */
export class V1Mem extends Mdev {
  constructor(uid = 0) {
    super('v1mem', 'v1mem-1', uid);
  }
}
