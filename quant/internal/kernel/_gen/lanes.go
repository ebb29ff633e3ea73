package main

// In the search every lane has a group of its own, so that all lanes do what the
// scalar search does with one group. A tile is n rows of 16 weights.
const laneBytes = 16 * 4

// Arrays of 16 float32 within searchLanes, in its order.
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
