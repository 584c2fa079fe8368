import type { BridgingOptions } from '../../src/interpose/bridged/bridging.ts';

type Given = 'present' | 'findings' | 'reach' | 'warn';

/** How devices are bridged unless a test says otherwise: nothing but what it must say is out of the ordinary. */
export function bridgingOptions(options: Pick<BridgingOptions, Given> & Partial<BridgingOptions>): BridgingOptions {
  return {
    roundTrip: false,
    segmentation: 'raw',
    offerP2P: false,
    countStopCopy: false,
    holdPrecopy: 0,
    onError: 'reset',
    v1: { stopBySaving: false, stopAfterLoad: false },
    dataFds: undefined,
    dataSection: 65_536,
    log: undefined,
    peers: undefined,
    caller: () => undefined,
    gone: () => {},
    containers: [],
    ...options,
  };
}
