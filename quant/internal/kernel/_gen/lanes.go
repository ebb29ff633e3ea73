package main

// In the search every lane has a group of its own, so that all lanes do what the
// scalar search does with one group. A tile is n rows of 16 weights.
const laneBytes = 16 * 4

// searchBytes is the size of an array of searchLanes, for 8 tiles.
const searchBytes = 8 * laneBytes

// Arrays within searchLanes, in its order.
const (
	currentScale = iota
	currentInverse
	currentZeroPoint
	sumCode
	sumCodeCode
	sumRest
	sumRestCode
	sumRestRest
	sumWeight
	baseInverse
	leastError
	bestScale
	bestInverse
	bestZeroPoint
	nextPromise
	nextScale
	nextInverse
	nextZeroPoint
	thresholds
)
